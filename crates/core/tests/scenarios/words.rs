//! Effects as a story tells them.

use pgward_core::decide::{DemoteMode, Effect, StartAs};
use pgward_core::names::MemberName;

/// A few words for what a decision asks for.
pub(crate) fn in_words(effect: &Effect) -> String {
    let named = |name: &Option<MemberName>| name.as_ref().map_or("nobody".to_owned(), ToString::to_string);
    match effect {
        Effect::Acquire => "acquire the leader key".to_owned(),
        Effect::Adopt => "prove the leader key".to_owned(),
        Effect::Release => "release the leader key".to_owned(),
        Effect::StoreSystemId { .. } => "write initialize".to_owned(),
        Effect::StoreConfig => "write config".to_owned(),
        Effect::RewriteFailover { request: None, .. } => "clear the request".to_owned(),
        Effect::RewriteFailover { .. } => "rewrite the request".to_owned(),
        Effect::StoreHistory(_) => "write history".to_owned(),
        Effect::ClearInitialize { .. } => "delete the empty initialize".to_owned(),
        Effect::PollPeers(members) => {
            let names: Vec<&str> = members.iter().map(MemberName::as_str).collect();
            format!("ask {}", names.join(" and "))
        }
        Effect::Bootstrap => "create the cluster".to_owned(),
        Effect::Clone { source, wipe: false } => format!("copy {source}"),
        Effect::Clone { source, wipe: true } => format!("remove the data and copy {source}"),
        Effect::Start(StartAs::Primary) => "start as primary".to_owned(),
        Effect::Start(StartAs::Standby { upstream }) => format!("start as standby of {}", named(upstream)),
        Effect::Promote => "promote".to_owned(),
        Effect::Demote { mode, .. } => match mode {
            DemoteMode::Graceful => "stop in order, then release the leader key".to_owned(),
            DemoteMode::Immediate => "stop at once, then release the leader key".to_owned(),
            DemoteMode::ImmediateNoLock => "stop at once".to_owned(),
            DemoteMode::Offline => "stop in order, then start read-only".to_owned(),
        },
        Effect::StopImmediately => "stop at once".to_owned(),
        Effect::CancelAction => "cancel what is under way".to_owned(),
        Effect::ReloadUpstream { upstream } => format!("follow {} by a reload", named(upstream)),
        Effect::RestartForUpstream { upstream } => format!("follow {} by a restart", named(upstream)),
        Effect::ResumeReplay => "resume replay".to_owned(),
        Effect::CrashRecover => "recover in single-user mode".to_owned(),
        Effect::CheckDivergence { leader } => format!("compare histories with {leader}"),
        Effect::Rewind { source } => format!("rewind from {source}"),
        Effect::Checkpoint => "checkpoint".to_owned(),
        Effect::Exit { leave_postgres: true, .. } => "end the agent, PostgreSQL stays".to_owned(),
        Effect::Exit { leave_postgres: false, .. } => "end the agent".to_owned(),
    }
}
