use std::path::Path;

use super::*;

const TTL: Duration = Duration::from_secs(30);
const LOOP_WAIT: Duration = Duration::from_secs(10);

fn at(seconds: u64) -> BootInstant {
    BootInstant(Duration::from_secs(seconds))
}

fn config(mode: WatchdogMode, device: &Path) -> WatchdogConfig {
    WatchdogConfig { mode, device: device.to_owned(), driver: "testing".to_owned(), ..WatchdogConfig::default() }
}

fn watchdog(config: &WatchdogConfig) -> Watchdog {
    Watchdog::new(config, device_of(config), TTL, LOOP_WAIT)
}

/// WDG-4, WDG-5.
#[test]
fn it_runs_and_is_fed_while_a_server_is_guarded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("watchdog");
    std::fs::write(&path, "").unwrap();
    let told = || std::fs::read_to_string(&path).unwrap();
    for mode in [WatchdogMode::Automatic, WatchdogMode::Required] {
        std::fs::write(&path, "").unwrap();
        let watchdog = watchdog(&config(mode, &path));
        watchdog.keep_alive(at(100), TTL, at(100));
        assert_eq!(told(), "", "a device that does not run is not fed: that would start it");
        watchdog.activate().unwrap();
        watchdog.activate().unwrap();
        assert_eq!(told(), "1", "once");
        watchdog.keep_alive(at(106), TTL, at(107));
        assert_eq!(told(), "11");
        // INV-S18: fed at 116, it would fire at 141, after the lease.
        watchdog.keep_alive(at(110), TTL, at(116));
        assert_eq!(told(), "11", "the renewal took longer than the margin");
        watchdog.disable();
        watchdog.disable();
        assert_eq!(told(), "11V");
    }
    let off = watchdog(&config(WatchdogMode::Off, &path));
    off.activate().unwrap();
    assert_eq!((off.failure(), told()), (None, "11V".to_owned()));
    let paused = watchdog(&config(WatchdogMode::Required, &path));
    paused.set_times(TTL, LOOP_WAIT, true);
    paused.activate().unwrap();
    assert_eq!(told(), "11V", "PAU-14");
}

/// WDG-1, WDG-3, WDG-7.
#[test]
fn who_requires_a_watchdog_and_has_none_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("missing");
    let required = watchdog(&config(WatchdogMode::Required, &path));
    let problem = required.activate().unwrap_err();
    assert!(problem.contains("missing cannot be opened: No such file"), "{problem}");
    assert_eq!(required.failure(), Some(problem));
    let automatic = watchdog(&config(WatchdogMode::Automatic, &path));
    assert_eq!((automatic.activate(), automatic.failure()), (Ok(()), None), "it goes on without");
    let kernel =
        WatchdogConfig { driver: "default".to_owned(), ..config(WatchdogMode::Required, Path::new("/dev/null")) };
    let problem = watchdog(&kernel).failure().unwrap();
    assert!(problem.starts_with("/dev/null is no watchdog of the kernel"), "{problem}");
}

/// WDG-2, WDG-8, WDG-9.
#[test]
fn the_timeout_follows_from_the_lease() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("watchdog");
    std::fs::write(&path, "").unwrap();
    let config = config(WatchdogMode::Required, &path);
    let timeout = |margin: Option<u64>, ttl: u64, loop_wait: u64| {
        let config = WatchdogConfig { safety_margin: margin.map(Duration::from_secs), ..config.clone() };
        let seconds = Duration::from_secs;
        let watchdog = Watchdog::new(&config, device_of(&config), seconds(ttl), seconds(loop_wait));
        watchdog.activate().map(|()| watchdog.lock().timeout.as_secs())
    };
    assert_eq!(timeout(Some(5), 30, 10), Ok(25));
    assert_eq!(timeout(None, 30, 10), Ok(15), "half the lease");
    assert_eq!(timeout(Some(0), 30, 10), Ok(30));
    for (margin, ttl, loop_wait) in [(Some(25), 30, 10), (Some(40), 30, 10), (None, 20, 11)] {
        let problem = timeout(margin, ttl, loop_wait).unwrap_err();
        assert!(problem.contains("less than one loop_wait"), "{problem}");
    }
    let watchdog = watchdog(&config);
    watchdog.activate().unwrap();
    watchdog.set_times(Duration::from_secs(20), LOOP_WAIT, false);
    watchdog.keep_alive(at(100), Duration::from_secs(20), at(100));
    assert_eq!(watchdog.lock().timeout.as_secs(), 15, "a shorter lease counts from the next keep-alive");
}

/// WDG-3: a device that rounds, or has one timeout only.
#[test]
fn a_device_that_fires_too_late_is_refused_only_where_it_is_required() {
    struct Slow;
    struct OpenSlow;
    impl std::fmt::Display for Slow {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("slow")
        }
    }
    impl Device for Slow {
        fn is_usable(&self) -> Result<(), DeviceError> {
            Ok(())
        }
        fn open(&self) -> Result<Box<dyn OpenDevice>, DeviceError> {
            Ok(Box::new(OpenSlow))
        }
    }
    impl OpenDevice for OpenSlow {
        fn set_timeout(&mut self, _timeout: Duration) -> Result<Duration, DeviceError> {
            Err(DeviceError::NoWayOut)
        }
        fn timeout(&mut self) -> Result<Duration, DeviceError> {
            Ok(Duration::from_secs(60))
        }
        fn keep_alive(&mut self) -> Result<(), DeviceError> {
            Ok(())
        }
        fn disable(self: Box<Self>) -> Result<(), DeviceError> {
            Err(DeviceError::NoWayOut)
        }
    }
    let of = |mode| Watchdog::new(&config(mode, Path::new("slow")), Arc::new(Slow), TTL, LOOP_WAIT);
    assert_eq!(of(WatchdogMode::Automatic).activate(), Ok(()));
    let problem = of(WatchdogMode::Required).activate().unwrap_err();
    assert_eq!(problem, "it fires after 60 s at the earliest, later than the 25 s that the lease allows");
}
