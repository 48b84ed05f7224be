//! HTTP basic authentication, for both sides.

use std::fmt;
use std::hint::black_box;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A user name and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct BasicAuth {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: String,
}

impl BasicAuth {
    /// The value of the `Authorization` header.
    pub fn header_value(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.username, self.password)))
    }

    /// True when `header` is exactly our header value; takes the same time wherever the difference is.
    pub fn accepts(&self, header: &[u8]) -> bool {
        let expected = self.header_value();
        let expected = expected.as_bytes();
        let differing = expected.iter().zip(header).fold(0, |differing, (a, b)| black_box(differing | (a ^ b)));
        expected.len() == header.len() && differing == 0
    }
}

impl fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BasicAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_header_is_accepted_and_the_password_is_never_printed() {
        let auth = BasicAuth { username: "admin".to_owned(), password: "secret".to_owned() };
        assert_eq!(auth.header_value(), "Basic YWRtaW46c2VjcmV0");
        assert!(auth.accepts(b"Basic YWRtaW46c2VjcmV0"));
        for bad in ["", "Basic", "basic YWRtaW46c2VjcmV0", "Basic YWRtaW46c2VjcmV0=", "Basic YWRtaW46YmFkYmFk"] {
            assert!(!auth.accepts(bad.as_bytes()), "{bad}");
        }
        assert!(!format!("{auth:?}").contains("secret"));
    }
}
