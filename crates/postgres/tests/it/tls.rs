//! Encrypted connections of the agent itself.

use std::process::Command;

use pgward_postgres::{ConnInfo, Credentials, query_once};

use crate::server::{Server, as_ordinary_user};

#[test]
fn every_sslmode_does_what_it_says() {
    as_ordinary_user("tls::every_sslmode_does_what_it_says", async || {
        let mut server = Server::new("n1");
        let at = |name: &str| server.root.path().join(name).display().to_string();
        let (certificate, key) = (at("server.crt"), at("server.key"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost", "-keyout", &key, "-out", &certificate])
            .output()
            .expect("the openssl program");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Command::new("chmod").args(["600", &key]).status().unwrap();
        for (name, value) in [("ssl", "on"), ("ssl_cert_file", &certificate), ("ssl_key_file", &key)] {
            server.set(name, value);
        }
        server.config.hba = Some(vec![
            "hostssl all all 127.0.0.1/32 scram-sha-256".into(),
            "hostssl replication all 127.0.0.1/32 scram-sha-256".into(),
        ]);
        let server = server.bootstrap().await;
        let settings = server.instance.settings();
        let ask = async |host: &str, mode: Option<&str>, root: Option<&str>| {
            let credentials = Credentials {
                sslmode: mode.map(str::to_owned),
                sslrootcert: root.map(str::to_owned),
                ..settings.superuser.clone()
            };
            let target = ConnInfo { host: Some(host.into()), ..server.address(&credentials) };
            let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
            query_once(&target, sql).await.map(|rows| rows[0].is_true(0))
        };
        for (what, host, mode, root, encrypted) in [
            ("the default encrypts when the server insists", "127.0.0.1", None, None, true),
            ("require", "127.0.0.1", Some("require"), None, true),
            ("verify-ca does not look at the name", "127.0.0.1", Some("verify-ca"), Some(certificate.as_str()), true),
            ("verify-full", "localhost", Some("verify-full"), Some(&certificate), true),
            ("disable is refused by hostssl", "127.0.0.1", Some("disable"), None, false),
            ("verify-full looks at the name", "127.0.0.1", Some("verify-full"), Some(&certificate), false),
            ("verify-full needs a root", "localhost", Some("verify-full"), Some("/nonexistent"), false),
            ("an unknown mode is an error", "127.0.0.1", Some("maybe"), None, false),
        ] {
            match ask(host, mode, root).await {
                Ok(is_encrypted) => assert!(encrypted && is_encrypted, "{what}"),
                Err(error) => assert!(!encrypted, "{what}: {error}"),
            }
        }
    });
}
