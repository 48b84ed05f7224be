//! The configuration: what the file, the environment and the store say, checked and typed.
//!
//! Three values come out of it:
//! - [`LocalConfig`]: what one member reads from its own file and `PATRONI_*` variables;
//! - [`DynamicConfig`]: what the whole cluster shares in the store's `config` key;
//! - [`EffectivePostgresql`]: both merged into what PostgreSQL on this member runs with.
//!
//! Existing Patroni files are accepted as they are. A mistake becomes a [`Finding`] with file, line, key, value, rule and
//! remedy; what Patroni would survive is a warning, what it would not is an error. Nothing here touches a file, a socket or
//! the environment: texts and variables are arguments, and checks that need I/O are handed out as data.

mod address;
mod dynamic;
mod effective;
mod environment;
mod finding;
mod governed;
mod load;
mod local;
mod options;
mod patch;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod report;
mod schema;
mod secret;
mod slots;
mod suggest;
mod tags;
pub mod units;
mod yaml;

pub use address::{HostPort, InvalidAddress, ListenAddress};
pub use dynamic::{DynamicConfig, InvalidChange, InvalidDynamicConfig, StandbyCluster, SynchronousMode, Timing};
pub use effective::{EffectivePostgresql, RECOVERY_PARAMETERS};
pub use finding::{Finding, Origin, Severity};
pub use governed::is_governed;
pub use load::{Check, ClientConfig, Probe, Rejected, Source, Sources, Validation, config_files, validate};
pub use local::{
    Authentication, BasicAuth, BootstrapConfig, Credentials, CtlConfig, EtcdConfig, LocalConfig, LogConfig, LogFormat,
    LogType, OptionList, PostgresqlConfig, RestApiConfig, ServerTokens, SrvDiscovery, VerifyClient, WatchdogConfig,
    WatchdogMode, to_dynamic_for_bootstrap,
};
pub use patch::patch;
pub use secret::Secret;
pub use slots::{ClusterType, PermanentSlot, SlotPattern, is_slot_name};
pub use tags::Tags;
pub(crate) use tags::{is_nofailover, is_nostream, is_nosync, sync_priority};
pub use yaml::read_value;
