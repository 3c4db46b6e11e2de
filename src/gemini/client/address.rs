//! Where requests go.

use std::fmt;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use http::Uri;
use http::uri::Scheme;

use crate::gemini::Error;

/// A base URL, known to be usable and without a slash at its end.
#[derive(Clone)]
pub(super) struct Address(String);

impl Default for Address {
    fn default() -> Self {
        Self("https://generativelanguage.googleapis.com".to_owned())
    }
}

impl Address {
    /// `whence` names the URL in what is said about it.
    pub(super) fn parse(url: &str, whence: &str) -> Result<Self, Error> {
        let wrong = |what: &str| Error::configuration(format!("{whence} {what}"));
        let url = url.trim();
        // What is wrong is not repeated: a URL may hold credentials.
        let uri: Uri =
            url.parse().map_err(|_| wrong("is not a URL, such as https://generativelanguage.googleapis.com"))?;
        let host = uri.host().unwrap_or_default();
        let Some(authority) = uri.authority().filter(|_| !host.is_empty()) else {
            return Err(wrong("has no host; write it with its scheme, as in https://example.com"));
        };
        let port = authority.as_str().rsplit('@').next().and_then(|host_and_port| host_and_port.strip_prefix(host));
        if port.is_some_and(|port| !port.is_empty()) && uri.port_u16().is_none() {
            return Err(wrong("has a port that is not a number up to 65535"));
        }
        match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => {}
            Some(scheme) if *scheme == Scheme::HTTP && is_loopback(host) => {}
            Some(scheme) if *scheme == Scheme::HTTP => {
                return Err(wrong("is plain http, which would show the API key to the network; use https"));
            }
            _ => return Err(wrong("has to start with https:// (or http:// for this machine)")),
        }
        if authority.as_str().contains('@') {
            return Err(wrong("holds a user name, which is not supported"));
        }
        if uri.query().is_some() || url.contains('#') {
            return Err(wrong("has a query or a fragment, which would end up in the middle of the path"));
        }
        Ok(Self(url.trim_end_matches('/').to_owned()))
    }

    /// Where a model is asked.
    pub(super) fn generate_content(&self, model: &str) -> Result<Uri, Error> {
        let wrong = |what: &str| Error::invalid_request(format!("the name of the model {what}"));
        let (collection, name) = match model.split_once('/') {
            None => ("models", model),
            Some((collection @ ("models" | "tunedModels" | "dynamic"), name)) => (collection, name),
            Some(_) => {
                return Err(wrong("has a slash, and is neither models/… nor tunedModels/…"));
            }
        };
        if name.is_empty() {
            return Err(wrong("is empty"));
        }
        if matches!(name, "." | "..") || name.contains(['/', '\\', '?', '#']) || name.contains(char::is_control) {
            return Err(wrong("has characters that would change the path of the request"));
        }
        let mut url = format!("{}/v1beta/{collection}/", self.0);
        for byte in name.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                url.push(byte.into());
            } else {
                let _ = write!(url, "%{byte:02X}");
            }
        }
        url.push_str(":generateContent");
        url.parse().map_err(|_| wrong("cannot be part of a URL"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_loopback(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    name == "localhost"
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || v6.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemini::ErrorKind;

    #[test]
    fn base_urls_are_https_or_this_machine() {
        for (url, kept) in [
            ("https://example.com", "https://example.com"),
            ("https://example.com:8443/gateway/", "https://example.com:8443/gateway"),
            (" https://example.com/ ", "https://example.com"),
            ("http://localhost:1", "http://localhost:1"),
            ("http://127.8.0.1/p", "http://127.8.0.1/p"),
            ("http://[::1]:9/", "http://[::1]:9"),
            ("https://example.com:65535", "https://example.com:65535"),
        ] {
            assert_eq!(Address::parse(url, "the base URL").expect(url).to_string(), kept);
        }
        for url in [
            "",
            "example.com",
            "/path",
            "ftp://example.com",
            "http://example.com",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
            "http://printer.localhost",
            "https://example.com:99999",
            "https://example.com:abc",
            "https://[::1]:65536",
            "https://u:p@example.com",
            "http://localhost@example.com",
            "https://example.com?key=x",
            "https://example.com#f",
            "https://",
            "http://[::2]",
        ] {
            assert_eq!(Address::parse(url, "the base URL").err().expect(url).kind(), ErrorKind::Configuration);
        }
        assert_eq!(
            Address::parse("ftp://example.com", "the base URL").err().expect("an error").message(),
            "the base URL has to start with https:// (or http:// for this machine)"
        );
    }

    #[test]
    fn a_model_cannot_leave_its_place_in_the_path() {
        let address = Address::parse("https://h/x/", "the base URL").expect("a URL");
        for (model, path) in [
            ("gemini-2.5-flash", "/x/v1beta/models/gemini-2.5-flash:generateContent"),
            ("models/m", "/x/v1beta/models/m:generateContent"),
            ("tunedModels/m", "/x/v1beta/tunedModels/m:generateContent"),
            ("a b:c%é", "/x/v1beta/models/a%20b%3Ac%25%C3%A9:generateContent"),
        ] {
            assert_eq!(address.generate_content(model).expect(model).path(), path);
        }
        for model in
            ["", "models/", "..", ".", "../m", "models/../m", "models/a/b", "m?x", "m#x", "a\\b", "a\nb", "other/m"]
        {
            assert_eq!(address.generate_content(model).expect_err(model).kind(), ErrorKind::InvalidRequest);
        }
    }
}
