//! Encrypted connections, with and without a certificate of our own.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pgward_store::conformance::until;
use pgward_store::{Condition, EtcdOptions, Key, Store};
use tokio::process::Command;

use crate::etcd::{Etcd, open, options};

const WITHIN: Duration = Duration::from_secs(10);

async fn openssl(dir: &Path, line: &str) -> Result<()> {
    let output = Command::new("openssl")
        .args(line.split(' '))
        .current_dir(dir)
        .output()
        .await
        .context("cannot start openssl: install it with `apt-get install openssl`")?;
    ensure!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// An authority, and certificates of its for the server and for us.
async fn certificates(dir: &Path) -> Result<()> {
    std::fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")?;
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(dir, &format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=ca -days 2")).await?;
    for name in ["server", "client"] {
        openssl(dir, &format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}")).await?;
        let sign = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san";
        openssl(dir, &format!("x509 -req -in {name}.csr -out {name}.pem {sign}")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn certificates_are_checked_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path()).await.unwrap();
    let path = |name: &str| dir.path().join(name);
    let text = |name: &str| path(name).display().to_string();
    let (ca, cert, key) = (text("ca.pem"), text("server.pem"), text("server.key"));
    let server = ["--cert-file", &cert, "--key-file", &key, "--trusted-ca-file", &ca, "--client-cert-auth"];
    let ctl = ["--cacert", &ca, "--cert", &text("client.pem"), "--key", &text("client.key")].map(str::to_owned);
    let etcd = Etcd::start_with(1, "https", &server, &ctl).await.unwrap();

    let good = EtcdOptions {
        ca_cert: Some(path("ca.pem")),
        cert: Some(path("client.pem")),
        key: Some(path("client.key")),
        ..options(etcd.urls(), "tls")
    };
    let opened = open(&good);
    let mut view = opened.store.view();
    opened.store.write(&Key::Status, "{\"optime\":1}", Condition::Always, None, WITHIN).await.unwrap();
    until(&mut view, "the status", |cluster| cluster.status.optime.is_some()).await;

    // A certificate that is renewed in its file is used for the next connection.
    let stale = dir.path().join("stale.pem");
    std::fs::copy(path("client.pem"), &stale).unwrap();
    let renewed = open(&EtcdOptions { ca_cert: Some(stale.clone()), ..good.clone() });
    renewed.store.read(Duration::from_secs(1)).await.unwrap_err();
    std::fs::copy(path("ca.pem"), &stale).unwrap();
    renewed.store.read(WITHIN).await.unwrap();

    for (case, options) in [
        ("no certificate of ours", EtcdOptions { cert: None, key: None, ..good.clone() }),
        ("an unknown authority", EtcdOptions { ca_cert: None, ..good.clone() }),
        ("no encryption", EtcdOptions { endpoints: vec![etcd.urls()[0].replace("https", "http")], ..good.clone() }),
    ] {
        let refused = open(&options).store.read(Duration::from_secs(1)).await;
        assert!(refused.is_err(), "{case}");
        println!("{case}: {}", refused.unwrap_err());
    }
}
