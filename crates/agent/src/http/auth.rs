//! HTTP basic authentication, for both sides.

use std::hint::black_box;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pgward_core::config::BasicAuth;

/// The value of the `Authorization` header.
pub(super) fn basic_auth_header(auth: &BasicAuth) -> String {
    format!("Basic {}", STANDARD.encode(format!("{}:{}", auth.username, auth.password.expose())))
}

/// True when `header` is exactly the value for `auth`; takes the same time wherever the difference is.
pub(crate) fn basic_auth_matches(auth: &BasicAuth, header: &[u8]) -> bool {
    let expected = basic_auth_header(auth);
    let expected = expected.as_bytes();
    let differing = expected.iter().zip(header).fold(0, |differing, (a, b)| black_box(differing | (a ^ b)));
    expected.len() == header.len() && differing == 0
}

#[cfg(test)]
mod tests {
    use pgward_core::config::Secret;

    use super::*;

    #[test]
    fn only_the_exact_header_is_accepted() {
        let auth = BasicAuth { username: "admin".to_owned(), password: Secret::new("secret") };
        assert_eq!(basic_auth_header(&auth), "Basic YWRtaW46c2VjcmV0");
        assert!(basic_auth_matches(&auth, b"Basic YWRtaW46c2VjcmV0"));
        for bad in ["", "Basic", "basic YWRtaW46c2VjcmV0", "Basic YWRtaW46c2VjcmV0=", "Basic YWRtaW46YmFkYmFk"] {
            assert!(!basic_auth_matches(&auth, bad.as_bytes()), "{bad}");
        }
    }
}
