//! TLS, on both sides.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use pgward_agent::http::{ClientTls, HttpClient, HttpError, Response, ServerVerification};
use pgward_agent::rest::{RestConfig, RestError, RestServer, ServerTls};
use pgward_core::config::VerifyClient;

use super::support::{Agent, Running, admin, loopback, protected, run};

/// An authority, and two certificates it has signed: `server` for 127.0.0.1, and `client`.
struct Papers(tempfile::TempDir);

impl Papers {
    fn issue() -> Papers {
        let papers = Papers(tempfile::tempdir().unwrap());
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        papers
            .openssl(&[&["req", "-x509", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt"], &key[..]].concat());
        for name in ["server", "client"] {
            let subject = format!("/CN={name}");
            let (private, public) = (format!("{name}.key"), format!("{name}.crt"));
            let issued = [
                &["req", "-x509", "-CA", "ca.crt", "-CAkey", "ca.key", "-subj", &subject, "-keyout", &private][..],
                &["-out", &public, "-addext", "subjectAltName=IP:127.0.0.1"],
                &["-addext", "basicConstraints=critical,CA:FALSE"],
                &key,
            ];
            papers.openssl(&issued.concat());
        }
        papers
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").args(arguments).current_dir(self.0.path()).output();
        let output = output.expect("openssl is installed (apt-get install openssl)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn server(&self, verify_client: VerifyClient) -> RestConfig {
        let tls = ServerTls {
            certfile: self.path("server.crt"),
            keyfile: Some(self.path("server.key")),
            cafile: Some(self.path("ca.crt")),
            verify_client,
        };
        let header = ("Strict-Transport-Security".to_owned(), "max-age=60".to_owned());
        RestConfig { tls: Some(tls), https_extra_headers: vec![header], ..protected() }
    }

    fn client(&self, identity: Option<&str>) -> ClientTls {
        ClientTls {
            verification: ServerVerification::Authorities(self.path("ca.crt")),
            identity: identity.map(|name| (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")))),
        }
    }
}

async fn ask(running: &Running, tls: ClientTls, method: &str, path: &str) -> Result<Response, HttpError> {
    let client = HttpClient::new(Some(admin()), tls).unwrap();
    let url = format!("https://{}{path}", running.address);
    client.request(method.parse().unwrap(), &url, None, Duration::from_secs(10)).await
}

#[tokio::test]
async fn a_server_is_trusted_by_those_who_know_its_authority() {
    let papers = Papers::issue();
    let running = run(&Agent::at("steady-async", "pg1"), papers.server(VerifyClient::None)).await;
    let answer = ask(&running, papers.client(None), "GET", "/primary").await.unwrap();
    assert_eq!((answer.status, &answer.headers["strict-transport-security"]), (200, &"max-age=60".parse().unwrap()));
    let insecure = ClientTls { verification: ServerVerification::Insecure, identity: None };
    assert_eq!(ask(&running, insecure, "GET", "/primary").await.unwrap().status, 200);
    let stranger = ask(&running, ClientTls::default(), "GET", "/primary").await;
    assert!(matches!(stranger, Err(HttpError::Handshake { .. })), "{stranger:?}");
    let url = format!("http://{}/", running.address);
    let plain = running.client.request("GET".parse().unwrap(), &url, None, Duration::from_secs(10));
    assert!(plain.await.is_err(), "plain HTTP is not served");
}

#[tokio::test]
async fn a_client_certificate_is_needed_where_the_setting_says_so() {
    let papers = Papers::issue();
    let agent = Agent::at("steady-async", "pg1");
    let running = run(&agent, papers.server(VerifyClient::Optional)).await;
    assert_eq!(ask(&running, papers.client(None), "GET", "/primary").await.unwrap().status, 200);
    let refused = ask(&running, papers.client(None), "DELETE", "/switchover").await.unwrap();
    assert_eq!((refused.status, refused.text().as_str()), (403, "client certificate required"));
    assert_eq!(ask(&running, papers.client(Some("client")), "DELETE", "/switchover").await.unwrap().status, 404);
    let running = run(&agent, papers.server(VerifyClient::Required)).await;
    assert!(ask(&running, papers.client(None), "GET", "/primary").await.is_err());
    assert_eq!(ask(&running, papers.client(Some("client")), "GET", "/primary").await.unwrap().status, 200);
}

#[tokio::test]
async fn papers_that_cannot_be_used_are_named() {
    let papers = Papers::issue();
    papers.openssl(&["pkcs8", "-topk8", "-in", "server.key", "-out", "locked.key", "-passout", "pass:x"]);
    std::fs::write(papers.path("empty"), "").unwrap();
    let bind = async |certfile: PathBuf, keyfile: PathBuf| {
        let tls = ServerTls { certfile, keyfile: Some(keyfile), cafile: None, verify_client: VerifyClient::None };
        let bound = RestServer::bind(&loopback(0), RestConfig { tls: Some(tls), ..RestConfig::default() }).await;
        let Err(RestError::Tls(error)) = bound else { panic!("served") };
        error.to_string()
    };
    let (certificate, key) = (papers.path("server.crt"), papers.path("server.key"));
    for (certfile, keyfile, named, why) in [
        (papers.path("nosuch"), key.clone(), "nosuch", "cannot read"),
        (papers.path("empty"), key.clone(), "empty", "holds no certificate"),
        (certificate.clone(), papers.path("empty"), "empty", "holds no private key"),
        (certificate.clone(), papers.path("locked.key"), "locked.key", "is encrypted"),
    ] {
        let message = bind(certfile, keyfile).await;
        assert!(message.contains(why) && message.contains(named), "{message}");
    }
    let message = bind(certificate, papers.path("client.key")).await;
    assert!(message.contains("cannot use the certificate"), "{message}");
}
