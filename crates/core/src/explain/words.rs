//! Decisions in words: short sentences with the figures that a person needs.

use std::time::Duration;

use crate::decide::{DemoteMode, Effect, Reason, StartAs};
use crate::names::MemberName;
use crate::time::rounded;

/// A reason as a sentence without its rules.
///
/// The text of [`Reason`] has exact numbers for the log; here sizes are rounded and differences are worked out.
pub fn sentence(reason: &Reason) -> String {
    if let Reason::TooFarBehind { bytes_behind, max_bytes_behind } = reason {
        let (behind, allowed) = (bytes(*bytes_behind), bytes(*max_bytes_behind));
        let just = if behind == allowed { "just " } else { "" };
        return format!("{behind} behind the last leader, {just}more than the {allowed} allowed");
    }
    if let Reason::MemberAhead { member, theirs, ours } = reason {
        if theirs <= ours {
            return format!("{member} is on a newer timeline");
        }
        let ahead = bytes(ours.bytes_behind(*theirs));
        return format!("{member} is {ahead} ahead ({theirs}, this member has {ours})");
    }
    reason.to_string()
}

/// A reason with the rules that it stands on: `this member is tagged nofailover [HLT-7, INV-S24]`.
pub fn with_rules(reason: &Reason) -> String {
    format!("{} [{}]", sentence(reason), reason.rules().join(", "))
}

/// A reason not to lead, where it is clear that nobody does: without that half of the sentence, with its rules.
pub fn refusal(reason: &Reason) -> String {
    let text = with_rules(reason);
    for known in
        ["nobody holds the leader key, but ", "nobody holds the leader key, and ", "nobody holds the leader key: "]
    {
        if let Some(rest) = text.strip_prefix(known) {
            return rest.to_owned();
        }
    }
    text
}

/// True when the reason is why this member did not take, or did not keep, the leadership that was free or its own.
pub fn is_refusal(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::BacksOff
            | Reason::NoFailover
            | Reason::NoRaceInPause
            | Reason::NoRaceWhileStarting
            | Reason::NoRaceAfterRefusal
            | Reason::NotSynchronous
            | Reason::TooFewVotes { .. }
            | Reason::NotInFailsafeMap
            | Reason::OldTimeline { .. }
            | Reason::AnotherHistory { .. }
            | Reason::TooFarBehind { .. }
            | Reason::PositionUnknown
            | Reason::TimelineTooLow
            | Reason::PrimaryAlive { .. }
            | Reason::KeepsPromise { .. }
            | Reason::NoWatchdog { .. }
            | Reason::LeadsWithoutWatchdog { .. }
            | Reason::MemberAhead { .. }
            | Reason::MemberPreferred { .. }
            | Reason::YieldsToCandidate { .. }
            | Reason::YieldsAfterSwitchover
            | Reason::RivalPrimary { .. }
            | Reason::MayNotLeadByHand { .. }
            | Reason::PromotionCancelled
            | Reason::PromotionRefused { .. }
            | Reason::MayLackCommits
            | Reason::TooLateToPromote
            | Reason::PrimaryInStandbyCluster
            | Reason::MayNotBootstrap
            | Reason::ForeignDataDir { .. }
            | Reason::ForeignDataDirInPause { .. }
            | Reason::ClearsRequest { .. }
    )
}

/// What a decision asks for, in a few words: `stop in order, then release the leader key`.
pub fn effect(effect: &Effect) -> String {
    let named = |name: &Option<MemberName>| name.as_ref().map_or("nobody".to_owned(), ToString::to_string);
    match effect {
        Effect::Acquire => "acquire the leader key".to_owned(),
        Effect::Adopt => "prove the leader key".to_owned(),
        Effect::Release => "release the leader key".to_owned(),
        Effect::StoreSystemId { .. } => "write initialize".to_owned(),
        Effect::StoreConfig { .. } => "write config".to_owned(),
        Effect::RewriteFailover { request: None, .. } => "clear the request".to_owned(),
        Effect::RewriteFailover { .. } => "rewrite the request".to_owned(),
        Effect::StoreHistory(_) => "write history".to_owned(),
        Effect::StoreFailsafe { .. } => "write failsafe".to_owned(),
        Effect::AskConsent { members, .. } => {
            format!("ask {} to wait", members.iter().map(String::as_str).collect::<Vec<_>>().join(" and "))
        }
        Effect::LiveOnConsent { .. } => "go on with the consent of all others".to_owned(),
        Effect::StoreSync { state: Some(_), .. } => "write sync".to_owned(),
        Effect::StoreSync { state: None, .. } => "delete sync".to_owned(),
        Effect::LoadStandbyNames { names: Some(names) } if names.is_empty() => "let commits wait for nobody".to_owned(),
        Effect::LoadStandbyNames { names: Some(names) } => format!("let commits wait for {names}"),
        Effect::LoadStandbyNames { names: None } => "load the configured synchronous_standby_names".to_owned(),
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
        Effect::Restart(StartAs::Primary) => "restart as primary".to_owned(),
        Effect::Restart(StartAs::Standby { upstream }) => format!("restart as standby of {}", named(upstream)),
        Effect::Promote => "promote".to_owned(),
        Effect::Demote { mode, .. } => match mode {
            DemoteMode::Graceful => "stop in order, then release the leader key".to_owned(),
            DemoteMode::Immediate => "stop at once, then release the leader key".to_owned(),
            DemoteMode::ImmediateNoLock => "stop at once".to_owned(),
            DemoteMode::Offline => "stop in order, then start read-only".to_owned(),
            DemoteMode::Cluster => "stop in order, and keep the leader key".to_owned(),
        },
        Effect::StopImmediately => "stop at once".to_owned(),
        Effect::CancelAction => "cancel what is under way".to_owned(),
        Effect::ReloadUpstream { upstream } => format!("follow {} by a reload", named(upstream)),
        Effect::RestartForUpstream { upstream } => format!("follow {} by a restart", named(upstream)),
        Effect::CopySlots { source, slots, .. } => {
            let slots = slots.keys().cloned().collect::<Vec<_>>().join(", ");
            format!("copy the logical slots {slots} from {source} by a restart")
        }
        Effect::ResumeReplay => "resume replay".to_owned(),
        Effect::CrashRecover => "recover in single-user mode".to_owned(),
        Effect::CheckDivergence { leader } => format!("compare histories with {leader}"),
        Effect::Rewind { source } => format!("rewind from {source}"),
        Effect::Checkpoint => "checkpoint".to_owned(),
        Effect::Exit { leave_postgres: true, .. } => "end the agent, PostgreSQL stays".to_owned(),
        Effect::Exit { leave_postgres: false, .. } => "end the agent".to_owned(),
    }
}

/// All effects of a decision: `acquire the leader key, then clear the request`. Empty for a decision to do nothing.
pub fn effects(effects: &[Effect]) -> String {
    effects.iter().map(effect).collect::<Vec<_>>().join(", then ")
}

/// A size, rounded, in the units of PostgreSQL's settings: `48 MB`, `1.5 kB`, `17 bytes`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count == 1 {
        return "1 byte".to_owned();
    }
    if count < 1024 {
        return format!("{count} bytes");
    }
    let mut tenths = u128::from(count) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10 * 1024 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    match (tenths / 10, tenths % 10) {
        (whole @ 0..10, tenth @ 1..) => format!("{whole}.{tenth} {}", UNITS[unit]),
        (whole, _) => format!("{whole} {}", UNITS[unit]),
    }
}

/// A span of time, rounded to what a person needs: `350 ms`, `2.1 s`, `17 s`, `3 min 20 s`, `2 h 5 min`, `4 days`.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let two = |large: u64, name: &str, small: u64, small_name: &str| match small {
        0 => format!("{large} {name}"),
        _ => format!("{large} {name} {small} {small_name}"),
    };
    match seconds {
        0 if duration.is_zero() => "0 s".to_owned(),
        0..120 => rounded(duration),
        120..7200 => two(seconds / 60, "min", seconds % 60, "s"),
        7200..172_800 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::Lsn;

    #[test]
    fn reasons_are_told_with_the_figures_that_a_person_needs() {
        let name = |text: &str| text.parse::<MemberName>().unwrap();
        for (reason, want) in [
            (
                Reason::TooFarBehind { bytes_behind: 48 << 20, max_bytes_behind: 1 << 20 },
                "48 MB behind the last leader, more than the 1 MB allowed [RACE-1]",
            ),
            (
                Reason::TooFarBehind { bytes_behind: (1 << 20) + 5, max_bytes_behind: 1 << 20 },
                "1 MB behind the last leader, just more than the 1 MB allowed [RACE-1]",
            ),
            (
                Reason::MemberAhead { member: name("n2"), theirs: Lsn(0x500_3000), ours: Lsn(0x500_0000) },
                "n2 is 12 kB ahead (0/5003000, this member has 0/5000000) [RACE-6, QRK-4]",
            ),
            (
                Reason::MemberAhead { member: name("n2"), theirs: Lsn(10), ours: Lsn(20) },
                "n2 is on a newer timeline [RACE-6, QRK-4]",
            ),
            (Reason::NoFailover, "nobody holds the leader key, but this member is tagged nofailover [HLT-7, INV-S24]"),
            (Reason::Follows { leader: name("n1") }, "follows the leader n1 [OWN-7, FOL-12]"),
        ] {
            assert_eq!(with_rules(&reason), want);
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_that_nobody_leads() {
        assert_eq!(refusal(&Reason::NoFailover), "this member is tagged nofailover [HLT-7, INV-S24]");
        assert_eq!(refusal(&Reason::PositionUnknown), "its own position is unknown [RACE-1, IN-P5]");
    }

    #[test]
    fn sizes_and_times_are_rounded() {
        for (count, want) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1 kB"),
            (1536, "1.5 kB"),
            (12 * 1024 + 300, "12 kB"),
            (1 << 20, "1 MB"),
            (48 << 20, "48 MB"),
            (u64::MAX, "16383 PB"),
        ] {
            assert_eq!(bytes(count), want, "{count}");
        }
        for (millis, want) in [
            (0, "0 s"),
            (7, "7 ms"),
            (350, "350 ms"),
            (2000, "2 s"),
            (2150, "2.2 s"),
            (17_900, "18 s"),
            (119_000, "119 s"),
            (200_000, "3 min 20 s"),
            (180_000, "3 min"),
            (7_500_000, "2 h 5 min"),
            (400_000_000, "4 days"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), want, "{millis}");
        }
    }

    #[test]
    fn effects_are_told_in_their_order() {
        let effects = [Effect::Acquire, Effect::RewriteFailover { request: None, seen: None }];
        assert_eq!(super::effects(&effects), "acquire the leader key, then clear the request");
        assert_eq!(super::effects(&[]), "");
    }
}
