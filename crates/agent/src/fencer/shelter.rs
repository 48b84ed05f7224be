//! Keeps the fencer able to act on a machine in trouble: not swapped out, not starved, not the first to be sacrificed.
//!
//! Every measure is optional. What the process lacks the privilege for becomes one warning at start, with the setting of a
//! systemd unit that grants it.

use std::fs;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Pid, setpriority_process, setsid};
use rustix::thread::set_name;

/// Takes every measure that is permitted and names those that are not.
///
/// `rehearse` has to run the code that matters once, so that it is in memory before it is locked there.
pub(super) fn take_shelter(rehearse: impl Fn()) -> Vec<String> {
    let mut missing = Vec::new();
    // A session of its own: signals meant for the agent's terminal or process group do not reach us.
    // It fails only for the leader of a process group, which has what it needs.
    let _ = setsid();
    let _ = set_name(c"pgward-fencer");
    // Neither keeps a volume busy nor depends on one.
    if let Err(error) = std::env::set_current_dir("/") {
        missing.push(format!("cannot leave the working directory ({error})"));
    }
    rehearse();
    // Only pages that have been touched are locked, and only mappings that exist now. Locking future ones too would make
    // every later allocation fail beyond the memory lock limit, and nothing on the way to a kill allocates.
    if let Err(error) = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT) {
        missing.push(format!("its memory can be swapped out (mlockall: {error}; LimitMEMLOCK=infinity permits it)"));
    }
    rehearse();
    if let Err(error) = setpriority_process(None::<Pid>, -20) {
        missing.push(format!(
            "it competes for the CPU with normal priority (setpriority: {error}; LimitNICE=-20 permits it)"
        ));
    } else {
        // A session is a scheduling group of its own, and a priority counts within the group only. Absent on kernels
        // without such groups.
        let _ = fs::write("/proc/self/autogroup", "-20");
    }
    if let Err(problem) = lower_oom_score() {
        missing.push(format!("it is as likely a victim as others when memory runs out ({problem})"));
    }
    missing
}

/// Asks the kernel to sacrifice others first when memory runs out.
fn lower_oom_score() -> Result<(), String> {
    const NEVER: i32 = -1000;
    let path = "/proc/self/oom_score_adj";
    let inherited = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if inherited == Some(NEVER) {
        return Ok(());
    }
    match fs::write(path, NEVER.to_string()) {
        Ok(()) => Ok(()),
        // Whoever started the agent has set a low score already.
        Err(_) if inherited.is_some_and(|score| score <= -900) => Ok(()),
        Err(error) => Err(format!("{path}: {error}; OOMScoreAdjust=-900 helps")),
    }
}
