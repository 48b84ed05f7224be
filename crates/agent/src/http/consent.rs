//! Asking other members to wait, for a primary without the store (FS-4).

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::Method;
use pgward_core::decide::failsafe::ConsentAnswer;
use pgward_core::wal::Lsn;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{HttpClient, HttpError, PEER_TIMEOUT, Response};

/// Pause before a member is asked again that did not take the connection: its agent may be starting.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Asks all `members` at once, by the URLs of their REST API, and again those that cannot be connected to; there is one
/// answer for each of them after at most `within`, and no more than [`PEER_TIMEOUT`].
///
/// Can be cancelled at any `.await`; who was asked may have promised all the same.
pub async fn ask_consent(
    client: &HttpClient,
    request: &Value,
    members: BTreeMap<String, String>,
    within: Duration,
) -> BTreeMap<String, ConsentAnswer> {
    let deadline = Instant::now() + within.min(PEER_TIMEOUT);
    let silent = |name: &String| (name.clone(), ConsentAnswer::Unreachable("no answer".to_owned()));
    let mut answers: BTreeMap<String, ConsentAnswer> = members.keys().map(silent).collect();
    let mut asked = JoinSet::new();
    for (name, api_url) in members {
        let (client, request) = (client.clone(), request.clone());
        asked.spawn(async move { (name, ask_one(&client, &request, &api_url, deadline).await) });
    }
    while let Some(answered) = asked.join_next().await {
        if let Ok((name, answer)) = answered {
            answers.insert(name, answer);
        }
    }
    answers
}

async fn ask_one(client: &HttpClient, request: &Value, api_url: &str, deadline: Instant) -> ConsentAnswer {
    let Some(url) = failsafe_url(api_url) else {
        return ConsentAnswer::Unreachable(format!("its API URL {api_url:?} cannot be used"));
    };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match client.request(Method::POST, &url, Some(request), left).await {
            Ok(response) => return answer_of(&response),
            Err(HttpError::Connect { .. }) if left > ASK_AGAIN * 2 => sleep(ASK_AGAIN).await,
            Err(problem) => return ConsentAnswer::Unreachable(problem.to_string()),
        }
    }
}

/// `/failsafe` beside the path of the stored URL.
fn failsafe_url(api_url: &str) -> Option<String> {
    let (scheme, rest) = api_url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().filter(|authority| !authority.is_empty())?;
    Some(format!("{scheme}://{authority}/failsafe"))
}

/// Only 200 with exactly this body is a yes.
fn answer_of(response: &Response) -> ConsentAnswer {
    if response.status == 200 && response.text() == "Accepted" {
        let position = response.headers.get("lsn").and_then(|lsn| lsn.to_str().ok()?.parse().ok()).map(Lsn);
        return ConsentAnswer::Agreed { position };
    }
    let text: String = response.text().chars().filter(|c| !c.is_control()).take(100).collect();
    let is_page = text.starts_with("<!DOCTYPE");
    ConsentAnswer::Refused(match response.status {
        502 => "failsafe mode is off there".to_owned(),
        status if is_page || text.is_empty() => format!("it answered {status}"),
        status => format!("it answered {status}: {text}"),
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::header::{HeaderMap, HeaderValue};

    use super::*;

    #[test]
    fn only_the_accepted_body_with_200_is_a_yes() {
        let answer = |status: u16, body: &'static str, lsn: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(lsn) = lsn {
                headers.insert("lsn", HeaderValue::from_static(lsn));
            }
            answer_of(&Response { status, headers, body: Bytes::from_static(body.as_bytes()) })
        };
        let agreed = |position| ConsentAnswer::Agreed { position };
        let refused = |why: &str| ConsentAnswer::Refused(why.to_owned());
        assert_eq!(answer(200, "Accepted", Some("7")), agreed(Some(Lsn(7))));
        assert_eq!(answer(200, "Accepted", Some("x")), agreed(None));
        assert_eq!(answer(200, "Accepted\n", None), refused("it answered 200: Accepted"));
        assert_eq!(answer(200, "", None), refused("it answered 200"));
        assert_eq!(answer(500, "Running as a leader", None), refused("it answered 500: Running as a leader"));
        assert_eq!(answer(502, "<!DOCTYPE HTML>", None), refused("failsafe mode is off there"));
        assert_eq!(answer(403, "<!DOCTYPE HTML>", None), refused("it answered 403"));
    }

    #[test]
    fn the_request_goes_to_the_host_of_the_stored_url() {
        for (api_url, url) in [
            ("http://n1:8008/patroni", Some("http://n1:8008/failsafe")),
            ("https://[::1]:8008", Some("https://[::1]:8008/failsafe")),
            ("n1:8008", None),
            ("http:///patroni", None),
        ] {
            assert_eq!(failsafe_url(api_url).as_deref(), url, "{api_url}");
        }
    }
}
