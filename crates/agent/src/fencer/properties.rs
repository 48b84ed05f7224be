//! What must hold for whatever reaches a fencer, or an agent from its fencer: one function for each property. The property
//! tests below call them with random values, the targets in `fuzz/` with what libFuzzer comes up with. Compiled for
//! tests and fuzzing only.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use pgward_core::cluster::Revision;
use pgward_core::time::{BootInstant, WallTime};

use super::process::{ProcessIdentity, parse_stat};
use super::protocol::{Fencing, MESSAGE_BYTES_MAX, Numbered, Orders, Refusal, Reply, Request, State};

/// Any text is a message or is refused, and what was understood means the same to whoever reads it next.
pub fn message(text: &str) {
    if let Ok(request) = text.parse::<Numbered<Request>>() {
        assert_reads_back(&request);
        if let Request::Arm(Orders { postmaster: Some(process), .. }) = request.body {
            assert!(process.pid > 0, "a signal to {process:?} would reach others");
        }
    }
    if let Ok(reply) = text.parse::<Numbered<Reply>>() {
        assert_reads_back(&reply);
    }
    if let Ok(fencing) = Fencing::from_record(text) {
        assert_eq!(Fencing::from_record(&fencing.record()), Ok(fencing));
    }
}

fn assert_reads_back<T>(message: &T)
where
    T: Display + FromStr + PartialEq + std::fmt::Debug,
    T::Err: std::fmt::Debug + PartialEq,
{
    let text = message.to_string();
    assert!(text.len() < MESSAGE_BYTES_MAX, "{text}");
    assert_eq!(text.parse::<T>().as_ref().ok(), Some(message), "{text}");
}

/// Every message that one side can send is what the other side receives.
pub fn messages(numbers: [u64; 8], pid: i32, kind: u8) {
    let at = |index: usize| BootInstant(Duration::from_nanos(numbers[index]));
    let process = ProcessIdentity { pid: pid.checked_abs().unwrap_or(i32::MAX).max(1), start_ticks: numbers[0] };
    let orders = Orders {
        postmaster: (kind & 1 != 0).then_some(process),
        deadline: at(1),
        epoch: Revision(i64::from_ne_bytes(numbers[2].to_ne_bytes())),
    };
    let number = numbers[3];
    for body in [Request::Arm(orders), Request::Disarm, Request::Status, Request::Quit] {
        assert_reads_back(&Numbered { number, body });
    }
    let fencing = Fencing {
        at: WallTime(Duration::from_nanos(numbers[4])),
        deadline: at(5),
        started: at(6),
        finished: at(7),
        epoch: orders.epoch,
        obeyed: kind & 2 != 0,
        killed: u32::try_from(numbers[4] >> 32).unwrap_or_default(),
        left: u32::try_from(numbers[5] >> 32).unwrap_or_default(),
    };
    assert!(!fencing.to_string().contains('\n'), "one line in a log");
    let refusals = Refusal::ALL.map(|(refusal, _)| Some(refusal));
    for refused in refusals.into_iter().chain([None]) {
        for state in [State::Disarmed, State::Armed(orders), State::Fenced] {
            let last_fencing = (kind & 4 != 0).then_some(fencing);
            assert_reads_back(&Numbered { number, body: Reply { refused, state, last_fencing } });
        }
    }
}

/// `/proc/PID/stat` of a process of any name.
pub fn stat(name: &[u8], parent: i32, start_ticks: u64, garbage: &[u8]) {
    let between = (5..=21).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
    let mut text = b"7 (".to_vec();
    text.extend(name);
    text.extend(format!(") Z {parent} {between} {start_ticks} 0").into_bytes());
    let read = parse_stat(&text).map(|stat| (stat.is_dead, stat.parent, stat.start_ticks));
    assert_eq!(read, Some((true, parent, start_ticks)), "{text:?}");
    let _ = parse_stat(garbage);
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    /// The same cases in every run, so that none fails by chance; `PROPTEST_RNG_SEED` lets a developer look further.
    fn repeatable() -> ProptestConfig {
        let from_environment = ProptestConfig::default();
        let rng_seed = match from_environment.rng_seed {
            RngSeed::Random => RngSeed::Fixed(1),
            chosen @ RngSeed::Fixed(_) => chosen,
        };
        ProptestConfig { rng_seed, failure_persistence: None, ..from_environment }
    }

    proptest! {
        #![proptest_config(repeatable())]

        #[test]
        fn any_text_is_a_message_or_refused(
            text in "1 ([0-9]{1,20}|-1) (arm|disarm|status|quit|ok|refused|fenced|armed|disarmed|-|[0-9]{1,20}|\\+?[0-9]|\n| |late|armed){0,12}",
            words in "((1|2|arm|ok|refused|armed|fenced|disarmed|true|false|-|[0-9]{1,20}|\\PC)[ \n]){0,14}",
        ) {
            message(&text);
            message(&words);
        }

        #[test]
        fn every_message_arrives_as_it_was_sent(numbers: [u64; 8], pid: i32, kind: u8) {
            messages(numbers, pid, kind);
        }

        #[test]
        fn a_process_of_any_name_is_recognised(
            name in vec(any::<u8>(), 0..16), parent: i32, start_ticks: u64, garbage in vec(any::<u8>(), 0..60),
        ) {
            stat(&name, parent, start_ticks, &garbage);
        }
    }
}
