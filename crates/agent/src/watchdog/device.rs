//! Watchdog devices: the kernel's, and a file in place of one for machines that have none.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pgward_core::config::WatchdogConfig;
use rustix::fs::{Access, access};
use watchdog_device::{OptionFlags, Watchdog as KernelWatchdog};

/// Why a device does not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// It cannot be opened, or could not be.
    #[error("the watchdog {} cannot be opened: {source}", path.display())]
    Open {
        /// The device.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A path that is no watchdog of the kernel.
    #[error("{} is no watchdog of the kernel: these are /dev/watchdog and /dev/watchdog0 to /dev/watchdog255", path.display())]
    NoWatchdog {
        /// The configured device.
        path: PathBuf,
    },
    /// It cannot be stopped once it runs (`nowayout`).
    #[error("it has no way to be stopped (nowayout, or no magic close)")]
    NoWayOut,
    /// A request failed.
    #[error("it refuses: {0}")]
    Refused(#[from] io::Error),
}

/// A device that is not open. Opening one starts it.
pub trait Device: fmt::Display + Send + Sync {
    /// True when it is there and could be opened, without opening it.
    ///
    /// # Errors
    /// Why not.
    fn is_usable(&self) -> Result<(), DeviceError>;
    /// Opens it, which starts the timer.
    ///
    /// # Errors
    /// When it is not there, busy, or not ours to use.
    fn open(&self) -> Result<Box<dyn OpenDevice>, DeviceError>;
}

/// A device whose timer runs.
pub trait OpenDevice: Send {
    /// Sets the timeout and returns what it is then: the device may round it.
    ///
    /// # Errors
    /// When the device has one timeout only, or not this one.
    fn set_timeout(&mut self, timeout: Duration) -> Result<Duration, DeviceError>;
    /// The timeout that it has.
    ///
    /// # Errors
    /// When the device does not say.
    fn timeout(&mut self) -> Result<Duration, DeviceError>;
    /// Counts anew from here.
    ///
    /// # Errors
    /// When the device does not take it.
    fn keep_alive(&mut self) -> Result<(), DeviceError>;
    /// Stops the timer and closes the device.
    ///
    /// # Errors
    /// When it cannot be stopped: it was fed once more, and will fire.
    fn disable(self: Box<Self>) -> Result<(), DeviceError>;
}

/// The device that the configuration asks for.
pub fn device_of(config: &WatchdogConfig) -> Arc<dyn Device> {
    match config.driver.as_str() {
        "testing" => Arc::new(FileDevice { path: config.device.clone() }),
        _ => Arc::new(KernelDevice::new(config.device.clone())),
    }
}

/// A watchdog of the kernel, by its driver API (`linux/watchdog.h`).
pub struct KernelDevice {
    path: PathBuf,
}

impl KernelDevice {
    /// The device of this path, which is looked at when it is opened.
    pub fn new(path: PathBuf) -> Self {
        KernelDevice { path }
    }

    /// Which of the kernel's devices it is; `None` for the first one, without a number.
    fn number(&self) -> Result<Option<u8>, DeviceError> {
        let path = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        let no_watchdog = || DeviceError::NoWatchdog { path: self.path.clone() };
        let name = path.to_str().and_then(|path| path.strip_prefix("/dev/watchdog")).ok_or_else(no_watchdog)?;
        match name {
            "" => Ok(None),
            number => number.parse().map(Some).map_err(|_| no_watchdog()),
        }
    }
}

impl fmt::Display for KernelDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

fn is_writable(path: &Path) -> Result<(), DeviceError> {
    let refused = |errno: rustix::io::Errno| DeviceError::Open { path: path.to_owned(), source: errno.into() };
    access(path, Access::WRITE_OK).map_err(refused)
}

impl Device for KernelDevice {
    fn is_usable(&self) -> Result<(), DeviceError> {
        self.number()?;
        is_writable(&self.path)
    }

    fn open(&self) -> Result<Box<dyn OpenDevice>, DeviceError> {
        let opened = match self.number()? {
            None => KernelWatchdog::new(),
            Some(number) => KernelWatchdog::new_by_id(number),
        };
        let opened = opened.map_err(|source| DeviceError::Open { path: self.path.clone(), source })?;
        Ok(Box::new(OpenKernelDevice(opened)))
    }
}

struct OpenKernelDevice(KernelWatchdog);

/// What the kernel takes for a timeout, in seconds.
fn seconds(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_secs().clamp(1, 65_534)).unwrap_or(65_534)
}

fn duration(seconds: i32) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

impl OpenDevice for OpenKernelDevice {
    fn set_timeout(&mut self, timeout: Duration) -> Result<Duration, DeviceError> {
        self.0.set_timeout(seconds(timeout)).map_err(io::Error::from)?;
        self.timeout()
    }

    fn timeout(&mut self) -> Result<Duration, DeviceError> {
        Ok(duration(self.0.get_timeout().map_err(io::Error::from)?))
    }

    fn keep_alive(&mut self) -> Result<(), DeviceError> {
        Ok(self.0.keep_alive().map_err(io::Error::from)?)
    }

    fn disable(mut self: Box<Self>) -> Result<(), DeviceError> {
        if !self.0.is_option_supported(&OptionFlags::MagicClose).unwrap_or(false) {
            self.keep_alive()?;
            return Err(DeviceError::NoWayOut);
        }
        Ok(self.0.magic_close()?)
    }
}

/// A file or FIFO that records what a device would be told: `1` for each keep-alive, `V` for the end. For tests, and for
/// trying the settings on a machine without a device (`driver: testing`). It resets nothing.
pub struct FileDevice {
    path: PathBuf,
}

impl fmt::Display for FileDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

impl Device for FileDevice {
    fn is_usable(&self) -> Result<(), DeviceError> {
        is_writable(&self.path)
    }

    fn open(&self) -> Result<Box<dyn OpenDevice>, DeviceError> {
        use rustix::fs::{Mode, OFlags, open};
        // Of a FIFO that nobody reads, too.
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = open(&self.path, flags, Mode::empty());
        let opened = opened.map_err(|errno| DeviceError::Open { path: self.path.clone(), source: errno.into() })?;
        Ok(Box::new(OpenFileDevice { file: File::from(opened), timeout: Duration::from_secs(60) }))
    }
}

struct OpenFileDevice {
    file: File,
    timeout: Duration,
}

impl OpenDevice for OpenFileDevice {
    fn set_timeout(&mut self, timeout: Duration) -> Result<Duration, DeviceError> {
        self.timeout = duration(seconds(timeout));
        Ok(self.timeout)
    }

    fn timeout(&mut self) -> Result<Duration, DeviceError> {
        Ok(self.timeout)
    }

    fn keep_alive(&mut self) -> Result<(), DeviceError> {
        Ok(self.file.write_all(b"1")?)
    }

    fn disable(mut self: Box<Self>) -> Result<(), DeviceError> {
        Ok(self.file.write_all(b"V")?)
    }
}
