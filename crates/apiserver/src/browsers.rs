//! What browsers are told: which pages of other origins may read answers (CORS), and that they are to come over
//! TLS only (HSTS).

use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
        ORIGIN, STRICT_TRANSPORT_SECURITY,
    },
};
use regex::Regex;

use crate::respond::{self, Body, Reply};

/// The methods and headers that kube-apiserver allows.
const METHODS: HeaderValue = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE, PATCH");
const HEADERS: HeaderValue = HeaderValue::from_static(
    "Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, X-Requested-With, If-Modified-Since",
);

/// What browsers are told of answers; by default nothing.
#[derive(Debug, Clone, Default)]
pub struct Browsers {
    origins: Vec<Regex>,
    transport: Option<HeaderValue>,
}

impl Browsers {
    /// Expressions for origins whose pages may read answers, and directives of
    /// `Strict-Transport-Security`.
    ///
    /// # Errors
    /// What is wrong with one of them, and which of the two flags of kube-apiserver it belongs to.
    pub fn new(origins: &[String], transport: &[String]) -> Result<Browsers, String> {
        let origin = |text: &String| {
            let flag = "--cors-allowed-origins";
            let begins = text.trim_start_matches('(').starts_with('^') || text.contains("//");
            let last = text.trim_end_matches(')');
            let ends = last.ends_with([':', '$']) && !last.ends_with("\\$");
            if !begins || !ends {
                return Err(format!(
                    "{flag}: {text:?} would match origins that only contain it: begin it with ^ or //, and end it with $ or :"
                ));
            }
            Regex::new(text)
                .map_err(|why| format!("{flag}: {text:?} is no regular expression: {why}"))
        };
        let known = |it: &&String| match it.strip_prefix("max-age=") {
            Some(age) => age.parse::<u32>().is_ok(),
            None => matches!(it.as_str(), "includeSubDomains" | "preload"),
        };
        if let Some(wrong) = transport.iter().find(|it| !known(it)) {
            return Err(format!(
                "--strict-transport-security-directives: {wrong:?} is none of max-age=SECONDS, includeSubDomains and preload"
            ));
        }
        let header = HeaderValue::try_from(transport.join("; ")).ok();
        Ok(Browsers {
            origins: origins.iter().map(origin).collect::<Result<_, _>>()?,
            transport: header.filter(|_| !transport.is_empty()),
        })
    }

    /// The origin of a request, if its pages may read the answer.
    pub fn origin<B>(&self, request: &Request<B>) -> Option<HeaderValue> {
        if self.origins.is_empty() {
            return None;
        }
        let origin = request.headers().get(ORIGIN)?;
        let text = origin.to_str().ok()?;
        let known = self.origins.iter().any(|it| it.is_match(text));
        known.then(|| origin.clone())
    }

    /// The answer to a browser that asks first whether it may ask.
    pub fn preflight(&self, method: &Method, origin: Option<&HeaderValue>) -> Option<Reply> {
        origin.filter(|_| *method == Method::OPTIONS)?;
        let mut reply = respond::text(StatusCode::NO_CONTENT.as_u16(), "");
        *reply.body_mut() = Body::empty();
        Some(reply)
    }

    /// Tells it with an answer.
    pub fn tell(&self, headers: &mut HeaderMap, origin: Option<HeaderValue>) {
        if let Some(transport) = &self.transport {
            headers.insert(STRICT_TRANSPORT_SECURITY, transport.clone());
        }
        if let Some(origin) = origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
            headers.insert(
                ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static("Date"),
            );
            headers.insert(
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(origins: &[&str], transport: &[&str]) -> Result<Browsers, String> {
        let own = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        Browsers::new(&own(origins), &own(transport))
    }

    #[test]
    fn origins_are_known_by_expressions() {
        let known = [r"^https://.*\.example\.com$", "//shop:", "//local(:|$)"];
        let browsers = of(&known, &[]).unwrap();
        for (origin, known) in [
            ("https://a.example.com", true),
            ("https://a.example.com.evil", false),
            ("http://shop:8080", true),
            ("http://shops:8080", false),
            ("http://local", true),
            ("http://localhost", false),
        ] {
            let request = Request::builder()
                .header("origin", origin)
                .body(())
                .unwrap();
            let found = browsers.origin(&request);
            assert_eq!(found.is_some(), known, "{origin}");
        }
        let none = Request::builder().body(()).unwrap();
        assert_eq!(browsers.origin(&none), None);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_flag() {
        for (origins, transport, part) in [
            (&["example.com"][..], &[][..], "begin it with ^ or //"),
            (&["^example.com"], &[], "end it with $ or :"),
            // Its scheme has a colon, and https://example.com.evil would be one of it.
            (&["https://example.com"], &[], "end it with $ or :"),
            (&[r"//example.com\$"], &[], "end it with $ or :"),
            (&["^(.$"], &[], "is no regular expression"),
            (&[], &["max-age=x"], "\"max-age=x\" is none of"),
            (&[], &["max-age=-1"], "\"max-age=-1\" is none of"),
            (&[], &["Preload"], "\"Preload\" is none of"),
        ] {
            let said = of(origins, transport).unwrap_err();
            assert!(said.contains(part), "{said}");
        }
    }
}
