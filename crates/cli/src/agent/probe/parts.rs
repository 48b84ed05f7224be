//! Would the parts of the agent take what they are given? They are made here as the agent makes them, and dropped again.

use pgward_agent::http::HttpClient;
use pgward_agent::rest::{RestConfig, RestError, RestServer};
use pgward_core::config::{Finding, ListenAddress, LocalConfig, Origin, Probe, Severity};
use pgward_store::EtcdStore;
use tokio_util::sync::CancellationToken;

/// What a start would fail with, apart from what other checks say. Nothing is connected and nothing listens.
pub(super) async fn findings(config: &LocalConfig, probes: &[Probe]) -> Vec<Finding> {
    let finding = |key: &str, problem: String, remedy: &str| {
        let origin = probes.iter().find(|probe| probe.key == key).map_or(Origin::Unknown, |probe| probe.origin.clone());
        let (severity, key, remedy) = (Severity::Error, key.to_owned(), remedy.to_owned());
        Finding { severity, origin, key, value: None, problem, remedy }
    };
    let mut findings = Vec::new();
    match RestConfig::from_config(&config.restapi).await {
        Ok(rest) => {
            let nowhere = ListenAddress { hosts: Vec::new(), port: config.restapi.listen.port };
            match RestServer::bind(&nowhere, rest).await.err() {
                Some(RestError::Tls(problem)) => {
                    findings.push(finding("restapi.certfile", chain(problem), "give files in PEM form"));
                }
                Some(problem @ RestError::Header { .. }) => {
                    findings.push(finding("restapi", chain(problem), "correct the name or the text of the header"));
                }
                Some(RestError::Listen { .. }) | None => {}
            }
        }
        Err(problem) => findings.push(finding("restapi.allowlist", problem.to_string(), "write addresses or networks")),
    }
    if let Err(problem) = HttpClient::from_config(&config.ctl) {
        findings.push(finding("ctl.certfile", chain(problem), "give files in PEM form"));
    }
    // With endpoints, each of them was asked.
    if config.etcd.endpoints.is_empty()
        && let Err(problem) = EtcdStore::new(&pgward_agent::etcd_options(config), CancellationToken::new())
    {
        findings.push(finding("etcd3", chain(problem), ""));
    }
    findings
}

fn chain(problem: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::from(problem))
}
