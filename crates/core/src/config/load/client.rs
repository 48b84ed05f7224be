//! The part of a configuration that `ctl` needs. Everything in it may be missing.

use super::{Rejected, Sources, document, etcd, has_errors, sections};
use crate::config::finding::Finding;
use crate::config::local::{CtlConfig, EtcdConfig, key_prefix};
use crate::config::report::{Purpose, Report};
use crate::config::units::{parse_int, text_of};
use crate::config::yaml::{Kind, Node};

/// What `ctl` reads from a configuration file, a complete one or one of its own, and from the environment.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientConfig {
    /// The cluster that is meant when none is named.
    pub scope: Option<String>,
    /// The first part of every key; `service` unless configured.
    pub namespace: String,
    /// The Citus group that is meant when none is named.
    pub group: Option<u32>,
    /// The store.
    pub etcd: Option<EtcdConfig>,
    /// How members are asked.
    pub ctl: CtlConfig,
    /// What deserves attention.
    pub warnings: Vec<Finding>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        ClientConfig {
            scope: None,
            namespace: "service".to_owned(),
            group: None,
            etcd: None,
            ctl: CtlConfig::default(),
            warnings: Vec::new(),
        }
    }
}

impl ClientConfig {
    /// Reads what is there. Nothing at all is not an error: options may name everything.
    ///
    /// # Errors
    /// When a file is not YAML, or the store's section cannot be used.
    pub fn load(sources: &Sources) -> Result<ClientConfig, Rejected> {
        let mut report = Report::default();
        let Some(root) = document(sources, &mut report) else {
            let is_nothing = sources.files.iter().all(|file| file.text.trim().is_empty());
            let findings = report.conclude(Purpose::Start);
            return if is_nothing && !sources.environment.contains_key(super::CONFIGURATION) {
                Ok(ClientConfig::default())
            } else {
                Err(Rejected { findings })
            };
        };
        let text = |path: &[&str]| match &root.at(path)?.kind {
            Kind::Scalar(value) => Some(text_of(value)).filter(|text| !text.is_empty()),
            Kind::List(_) | Kind::Map(_) => None,
        };
        let has_store = crate::config::environment::STORE_SECTIONS.iter().any(|name| has(&root, name));
        let etcd = etcd::read(&root, &mut report);
        if etcd.is_none() && has_store {
            etcd::complain(&root, &mut report);
        }
        let config = ClientConfig {
            scope: text(&["scope"]),
            namespace: text(&["namespace"])
                .map_or_else(|| "service".to_owned(), |text| text.trim_matches('/').to_owned()),
            group: text(&["citus", "group"]).and_then(|text| u32::try_from(parse_int(&text, None)?).ok()),
            etcd,
            ctl: sections::ctl(&root, &mut report),
            warnings: Vec::new(),
        };
        let findings = report.conclude(Purpose::Start);
        if has_errors(&findings) {
            Err(Rejected { findings })
        } else {
            Ok(ClientConfig { warnings: findings, ..config })
        }
    }

    /// The prefix of a cluster's keys: `/service/demo/`.
    pub fn prefix(&self, scope: &str) -> String {
        key_prefix(&self.namespace, scope)
    }
}

fn has(root: &Node, section: &str) -> bool {
    root.get(section).is_some_and(|node| !node.is_null())
}
