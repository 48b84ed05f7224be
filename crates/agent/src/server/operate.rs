//! Starting, stopping, promoting, copying: what actions ask of the local server.

use std::collections::BTreeMap;
use std::time::Duration;

use pgward_core::cluster::{Cluster, Member};
use pgward_core::decide::slots::{LogicalSlot, Slots};
use pgward_core::time::rounded;
use pgward_core::wal::Lsn;
use pgward_postgres::{
    BasebackupOptions, ClusterState, DataDirState, InitdbOptions, Postmaster, Replace, ServerConfig,
    ShutdownCheckpoint, SlotCopy, StartOutcome, StopMode, StopOptions, raise_for_standby,
};
use serde_json::json;
use tokio::net::lookup_host;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{LastRecord, LocalServer, ServerControl, ServerError, StopHow, Stopped};
use crate::local::Local;

/// What is left of a killed server ends at once, or hangs in the kernel.
const LEFTOVERS_LIMIT: Duration = Duration::from_secs(2);

impl LocalServer {
    /// The configuration that the server is started with.
    pub(super) async fn server_config(&self, upstream: Option<Option<&Member>>) -> Result<ServerConfig, ServerError> {
        let effective = self.effective();
        let filtered = self.0.instance.filter_parameters(&effective.parameters).await?;
        for name in &filtered.unknown {
            warn!(parameter = %name, "PostgreSQL does not know this parameter: it is left out");
        }
        let mut parameters = filtered.kept;
        self.add_slot_parameters(&mut parameters, upstream.is_some());
        self.add_standby_names(&mut parameters).await;
        let mut config = ServerConfig {
            parameters,
            command_line: effective.command_line.clone(),
            hba: effective.pg_hba.clone(),
            ident: effective.pg_ident.clone(),
            custom_conf: effective.custom_conf.clone(),
            recovery: upstream.map(|upstream| self.recovery(upstream)),
        };
        let mut pending = serde_json::Map::new();
        if config.recovery.is_some() {
            let control = self.0.instance.control_data().await?;
            let parameters = config.parameters.iter_mut().map(|(name, value)| (name.as_str(), value));
            let command_line = config.command_line.iter_mut().map(|(name, value)| (name.as_str(), value));
            for (name, change) in raise_for_standby(parameters.chain(command_line), &control) {
                pending.insert(name, json!({"old_value": change.old, "new_value": change.new}));
            }
        }
        self.state().pending_restart = pending;
        Ok(config)
    }

    async fn spawn(&self, upstream: Option<Option<&Member>>) -> Result<Postmaster, ServerError> {
        self.0.instance.check_owner()?;
        self.0.instance.kill_leftovers(LEFTOVERS_LIMIT).await?;
        self.check_port().await?;
        let config = self.server_config(upstream).await?;
        let postmaster = self.0.instance.spawn(&config).await?;
        info!(pid = postmaster.pid(), "started PostgreSQL");
        Ok(postmaster)
    }

    /// The shutdown checkpoint, from the head of the control file: clients wait meanwhile, and a program takes time.
    /// `None` while WAL is archived: the record before the checkpoint may then be a segment switch (STS-3).
    fn quick_shutdown_position(&self) -> Option<Lsn> {
        let effective = self.effective();
        let archives = effective.parameters.get("archive_mode").is_some_and(|mode| mode != "off");
        let look = self.0.instance.control_quick_look().filter(|_| !archives)?;
        (look.state == ClusterState::ShutDown).then_some(look.checkpoint)
    }
}

/// How long the name of a host to listen on may take to resolve before PostgreSQL is left to find out itself.
const RESOLVE_LIMIT: Duration = Duration::from_secs(2);

/// True when it is certain: a name that is not resolved in time is PostgreSQL's to complain of.
async fn is_port_taken(host: &str, port: u16) -> bool {
    match timeout(RESOLVE_LIMIT, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => {
            // PostgreSQL starts when it can listen on one of them.
            let attempts: Vec<_> = addresses.map(std::net::TcpListener::bind).collect();
            let is_taken = |problem: &std::io::Error| problem.kind() == std::io::ErrorKind::AddrInUse;
            !attempts.iter().any(Result::is_ok) && attempts.iter().any(|bound| bound.as_ref().is_err_and(is_taken))
        }
        Ok(Err(problem)) => {
            warn!(host, error = %problem, "a host of postgresql.listen cannot be resolved");
            false
        }
        Err(_) => {
            warn!(host, limit = rounded(RESOLVE_LIMIT), "a host of postgresql.listen was not resolved in time");
            false
        }
    }
}

impl ServerControl for LocalServer {
    async fn check_port(&self) -> Result<(), ServerError> {
        if self.0.instance.postmaster().ok().flatten().is_some() {
            return Ok(()); // It is our own server that listens there.
        }
        let listen = &self.0.config.postgresql.listen;
        for host in &listen.hosts {
            let host = if host == "*" { "0.0.0.0" } else { host.as_str() };
            if is_port_taken(host, listen.port).await {
                return Err(ServerError::Unusable(format!(
                    "postgresql.listen: {listen}: address already in use; stop what listens there, or choose another port"
                )));
            }
        }
        Ok(())
    }

    async fn start_primary(&self) -> Result<Postmaster, ServerError> {
        self.spawn(None).await
    }

    async fn start_standby(&self, upstream: Option<&Member>) -> Result<Postmaster, ServerError> {
        self.forget_standby_names();
        self.spawn(Some(upstream)).await
    }

    async fn wait_accepting(&self, postmaster: &Postmaster) -> Result<(), ServerError> {
        let limit = self.effective().pg_ctl_timeout;
        match self.0.instance.wait_accepting(postmaster, limit).await? {
            StartOutcome::Accepting(_) => Ok(()),
            StartOutcome::Starting(_) => {
                Err(ServerError::DidNotStart(format!("it does not accept connections after {}", rounded(limit))))
            }
            StartOutcome::Failed { output } => Err(ServerError::DidNotStart(output)),
        }
    }

    async fn stop(
        &self,
        local: &Local<Postmaster>,
        how: StopHow,
        limit: Option<Duration>,
        announce: Option<oneshot::Sender<LastRecord>>,
    ) -> Result<Stopped, ServerError> {
        let options = StopOptions {
            mode: if how == StopHow::Immediate { StopMode::Immediate } else { StopMode::Fast },
            checkpoint: how == StopHow::FastWithCheckpoint,
            timeout: limit,
            ..StopOptions::default()
        };
        let known = local.get().postmaster.filter(Postmaster::is_alive);
        let (written, checkpoint) = oneshot::channel();
        let stop = async {
            match (self.0.instance.postmaster(), known) {
                // Whoever cannot find out what runs now, out of descriptors say, stops what ran a moment ago.
                (Ok(None) | Err(_), Some(known)) => {
                    self.0.instance.stop_postmaster(&known, &options, Some(written)).await
                }
                (Ok(_) | Err(_), _) => self.0.instance.stop(&options, Some(written)).await,
            }
        };
        let tell = async {
            if let (Ok(ShutdownCheckpoint { checkpoint, published, .. }), Some(announce)) = (checkpoint.await, announce)
            {
                // Who does not wait for it any more does not need it.
                let _ = announce.send(LastRecord { checkpoint, published });
            }
        };
        let (outcome, ()) = tokio::join!(stop, tell);
        let outcome = outcome?;
        info!(?outcome, "stopped PostgreSQL");
        // Backends of a postmaster that was killed may live on for a moment.
        self.0.instance.kill_leftovers(LEFTOVERS_LIMIT).await?;
        if how == StopHow::Immediate {
            return Ok(Stopped { published: None });
        }
        if let Some(checkpoint) = self.quick_shutdown_position() {
            return Ok(Stopped { published: Some(checkpoint) });
        }
        let published = match self.0.instance.shutdown_checkpoint().await {
            Ok(checkpoint) => checkpoint.map(|checkpoint| checkpoint.published),
            Err(problem) => {
                warn!(error = %problem, "the position of the shutdown is not known");
                None
            }
        };
        Ok(Stopped { published })
    }

    async fn end_leftovers(&self) -> Result<(), ServerError> {
        self.0.instance.kill_leftovers(LEFTOVERS_LIMIT).await?;
        Ok(())
    }

    async fn promote(&self) -> Result<(), ServerError> {
        self.warn_of_unready_slots(); // SLT-9
        self.end_slot_work().await; // PRO-7: a slot that is being moved forward would keep its consumer out.
        Ok(self.0.instance.promote().await?)
    }

    async fn wait_promoted(&self, limit: Duration) -> Result<(), ServerError> {
        Ok(self.0.instance.wait_promoted(limit).await?)
    }

    async fn archive_last_wal(&self) -> Result<(), ServerError> {
        let saved = self.0.instance.archive_shutdown_segment(&CancellationToken::new()).await?;
        info!(saved, "archived the last WAL");
        Ok(())
    }

    async fn checkpoint(&self) -> Result<(), ServerError> {
        Ok(self.0.instance.checkpoint(None).await?)
    }

    async fn resume_replay(&self) -> Result<(), ServerError> {
        Ok(self.0.instance.resume_replay().await?)
    }

    async fn reload_upstream(&self, upstream: Option<&Member>) -> Result<(), ServerError> {
        let config = self.server_config(Some(upstream)).await?;
        self.0.instance.write_configuration(&config).await?;
        self.state().compared = None;
        Ok(self.0.instance.reload().await?)
    }

    async fn load_standby_names(&self, names: Option<&str>) -> Result<(), ServerError> {
        self.change_standby_names(names).await
    }

    async fn apply_configuration(&self, upstream: Option<Option<&Member>>) -> Result<(), ServerError> {
        let config = self.server_config(upstream).await?;
        if self.0.instance.write_configuration(&config).await? {
            info!("the configuration of PostgreSQL has changed: reloads it");
            self.0.instance.reload().await?;
        }
        let pending = self.0.instance.pending_restart(&config.parameters).await?;
        // Beside what a standby has to keep larger than wanted (RST-6), which the configuration before has found.
        let mut state = self.state();
        for (name, change) in pending {
            state.pending_restart.insert(name, json!({"old_value": change.old, "new_value": change.new}));
        }
        Ok(())
    }

    async fn clone_from(&self, source: &Member, wipe: bool, cancel: &CancellationToken) -> Result<(), ServerError> {
        self.0.instance.check_owner()?;
        let connection = self.replication_to(source)?;
        let mut options = BasebackupOptions { options: self.effective().basebackup.clone() };
        if !options.options.iter().any(|(name, _)| name == "checkpoint") {
            // The member is waited for: a spread checkpoint would take minutes.
            options.options.push(("checkpoint".to_owned(), Some("fast".to_owned())));
        }
        let replace = if wipe { Replace::Cluster } else { Replace::Nothing };
        Ok(self.0.instance.clone_from(&connection, replace, &options, None, cancel).await?)
    }

    async fn initdb(&self, cancel: &CancellationToken) -> Result<(), ServerError> {
        self.0.instance.check_owner()?;
        if self.0.instance.data_dir_state() != DataDirState::Empty {
            return Err(ServerError::NotOurs("the data directory is not empty any more: it is not touched".to_owned()));
        }
        let bootstrap = self.0.config.bootstrap.clone().unwrap_or_default();
        let options = InitdbOptions { options: bootstrap.initdb };
        self.0.instance.bootstrap_initdb(&options, cancel).await?;
        if self.effective().pg_hba.is_none() && !bootstrap.pg_hba.is_empty() {
            self.0.instance.append_hba(&bootstrap.pg_hba).await?;
        }
        Ok(())
    }

    async fn post_bootstrap(&self, cancel: &CancellationToken) -> Result<(), ServerError> {
        self.0.instance.create_roles().await?;
        let command = self.0.config.bootstrap.as_ref().and_then(|bootstrap| bootstrap.post_bootstrap.clone());
        if let Some(command) = command {
            info!(%command, "runs the script after the bootstrap");
            self.0.instance.run_post_bootstrap(&command, cancel).await?;
        }
        Ok(())
    }

    async fn move_aside(&self) -> Result<(), ServerError> {
        Ok(self.0.instance.move_data_dir_aside(".failed").await?)
    }

    async fn sync_slots(&self, cluster: &Cluster, slots: &Slots) -> Result<(), ServerError> {
        self.bring_slots_in_line(cluster, slots).await
    }

    async fn fetch_slots(
        &self,
        source: &Member,
        slots: &BTreeMap<String, LogicalSlot>,
    ) -> Result<Vec<SlotCopy>, ServerError> {
        self.fetch_usable_slots(source, slots).await
    }

    async fn install_slots(&self, copies: &[SlotCopy]) -> Result<(), ServerError> {
        self.install_copies(copies)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pgward_core::config::{DynamicConfig, LocalConfig, Source, Sources};

    use pgward_core::cluster::MemberRole;

    use super::*;
    use crate::host::System;
    use crate::server::ServerSight;

    #[tokio::test]
    async fn a_server_whose_data_directory_vanished_is_stopped_all_the_same() {
        let root = tempfile::tempdir().unwrap();
        let (data_dir, bin_dir) = (root.path().join("data"), root.path().join("bin"));
        for directory in [&data_dir, &bin_dir] {
            std::fs::create_dir(directory).unwrap();
        }
        let program = bin_dir.join("postgres");
        std::fs::copy("/bin/sleep", &program).unwrap();
        // An orphan: a child of this process would not pass for a server.
        let script = format!("cd {}; echo $$; exec {} 60 >/dev/null 2>&1", data_dir.display(), program.display());
        let output = std::process::Command::new("setsid").args(["-f", "/bin/sh", "-c", &script]).output().unwrap();
        let pid = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        std::fs::write(data_dir.join("postmaster.pid"), format!("{pid}\n{}\n0\n", data_dir.display())).unwrap();
        let yaml = format!(
            "{{scope: demo, name: n1, etcd3: {{host: 127.0.0.1}}, \
             restapi: {{listen: '127.0.0.1:1', connect_address: '127.0.0.1:1'}}, \
             postgresql: {{listen: '127.0.0.1:1', connect_address: '127.0.0.1:1', data_dir: {}, bin_dir: {}, \
             authentication: {{superuser: {{username: a}}, replication: {{username: b}}}}}}}}",
            data_dir.display(),
            bin_dir.display()
        );
        let file = Source { name: "n1.yml".to_owned(), text: yaml };
        let config = LocalConfig::load(&Sources { files: vec![file], environment: BTreeMap::new() }).unwrap();
        let dynamic = DynamicConfig::from_map(&serde_json::Map::new()).unwrap();
        let server = LocalServer::new(Arc::new(config), &dynamic, "/bin/false".into());
        let local = Local::new(MemberRole::Primary, Arc::new(System));
        let postmaster = async {
            loop {
                // The shell has not become the program at once.
                match server.instance().postmaster().unwrap() {
                    Some(postmaster) => break postmaster,
                    None => tokio::task::yield_now().await,
                }
            }
        };
        let postmaster = tokio::time::timeout(Duration::from_secs(5), postmaster).await.unwrap();
        local.started(postmaster.clone());
        std::fs::remove_dir_all(&data_dir).unwrap();

        assert!(server.may_be_writable(&local).await, "the leader key is kept while it lives");
        server.stop(&local, StopHow::Immediate, None, None).await.unwrap();
        assert!(!postmaster.is_alive());
        assert!(!server.may_be_writable(&local).await);
    }

    #[tokio::test]
    async fn a_port_is_taken_only_when_that_is_certain() {
        let held = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = held.local_addr().unwrap().port();
        assert!(is_port_taken("127.0.0.1", port).await);
        assert!(!is_port_taken("no-such-host.invalid", port).await, "PostgreSQL says itself what is wrong");
        drop(held);
        assert!(!is_port_taken("127.0.0.1", port).await);
    }
}
