//! Web pages by where they come from: `https://app.example.com`, or every page there is.

use std::{fmt, str::FromStr};

use url::Url;

use super::value::Value;

/// Whose pages may read answers in a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Everybody's, who then come without credentials of the browser.
    Any,
    /// Each as a browser writes it in `Origin`.
    These(Vec<String>),
}

/// What is no list of origins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected origins such as https://app.example.com, separated by commas, or * alone")]
pub struct NoOrigins;

impl FromStr for Origins {
    type Err = NoOrigins;

    fn from_str(text: &str) -> Result<Self, NoOrigins> {
        if text.trim() == "*" {
            return Ok(Self::Any);
        }
        let origins = text.split(',').map(|origin| normal(origin.trim()));
        origins.collect::<Option<_>>().map(Self::These).ok_or(NoOrigins)
    }
}

/// In lower case and without the port that goes without saying. What has a path, even `/`, is refused:
/// it would look as if the path mattered.
fn normal(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("://")?;
    let url = Url::parse(text).ok()?;
    let bare = !rest.contains(['/', '\\', '?', '#', '@', '*']);
    (bare && matches!(url.scheme(), "http" | "https")).then(|| url.origin().ascii_serialization())
}

impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::These(origins) => f.write_str(&origins.join(",")),
        }
    }
}

impl Value for Origins {
    const EXPECTED: &'static str =
        "origins such as `https://app.example.com`, separated by commas, or `*` alone";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        for (text, shown) in [
            ("https://app.example.com", "https://app.example.com"),
            (
                "HTTPS://App.Example.com:443, http://localhost:3000",
                "https://app.example.com,http://localhost:3000",
            ),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
            (" * ", "*"),
        ] {
            assert_eq!(Origins::parse(text).expect(text).to_string(), shown);
        }
    }

    #[test]
    fn what_is_more_or_less_than_an_origin_is_refused() {
        for bad in [
            "",
            "null",
            "app.example.com",
            "https://",
            "https://a.example/",
            "https://a.example/app",
            "https://a.example?x",
            "https://me@a.example",
            "https://*.example.com",
            "ftp://a.example",
            "file:///",
            "*,https://a.example",
            "https://a.example,*",
            "https://a.example,",
        ] {
            assert_eq!(Origins::parse(bad), None, "{bad:?}");
        }
    }
}
