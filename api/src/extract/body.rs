//! Strict JSON: unknown fields, wrong types and impossible values are named, field by field.

use axum::{
    body::Bytes,
    extract::{FromRequest, OptionalFromRequest, Request},
};
use http::{StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    problem::{ApiError, FieldError, too_large},
    state::Api,
};

/// A body that is JSON, has no field that we do not know, and holds what its fields may hold.
pub struct Valid<T>(pub T);

/// What a type cannot say by its form: lengths, ranges, what excludes what.
pub trait Validate {
    fn validate(&self, faults: &mut Faults);
}

/// What is wrong with a request, collected: people fix all of it at once.
#[derive(Debug, Default)]
pub struct Faults(Vec<FieldError>);

impl Faults {
    pub fn add(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.0.push(FieldError::new(pointer, detail));
    }

    /// Between 1 and `most` characters, none of them a control character.
    pub fn text(&mut self, pointer: &str, text: &str, most: usize) {
        let length = text.chars().count();
        if text.trim().is_empty() {
            self.add(pointer, "must not be empty");
        } else if length > most {
            self.add(pointer, format!("has {length} characters, may have {most}"));
        } else if text.chars().any(char::is_control) {
            self.add(pointer, "contains a control character");
        }
    }

    pub fn into_result(self) -> Result<(), ApiError> {
        if self.0.is_empty() { Ok(()) } else { Err(ApiError::invalid(self.0)) }
    }
}

impl<T: DeserializeOwned + Validate> FromRequest<Api> for Valid<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        if !kind.is_some_and(|kind| kind.to_str().is_ok_and(is_json)) {
            return Err(not_json());
        }
        parse(&read(request, api).await?).map(Self)
    }
}

/// Where everything in a body may be left out, the body may.
impl<T: DeserializeOwned + Validate> OptionalFromRequest<Api> for Valid<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Option<Self>, ApiError> {
        if request.headers().contains_key(header::CONTENT_TYPE) {
            return <Self as FromRequest<Api>>::from_request(request, api).await.map(Some);
        }
        match read(request, api).await?.is_empty() {
            true => Ok(None),
            false => Err(not_json()),
        }
    }
}

fn not_json() -> ApiError {
    ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported-media-type",
        "Not JSON",
        "send the body as application/json",
    )
}

/// The whole body, up to the limit.
pub(crate) async fn read(request: Request, api: &Api) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, api).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => ApiError::malformed("the body broke off"),
    })
}

fn is_json(kind: &str) -> bool {
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

pub(crate) fn parse<T: DeserializeOwned + Validate>(body: &[u8]) -> Result<T, ApiError> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| ApiError::malformed(format!("the body is not JSON: {error}")))?;
    let mut faults = Faults::default();
    find_nuls(&value, &mut String::new(), &mut faults);
    // Serde would take the fields by their places.
    if value.is_array() {
        faults.add("", "is a list, expected an object");
    }
    faults.into_result()?;
    let parsed: T = serde_path_to_error::deserialize(value).map_err(|error| {
        let field = pointer(error.path(), &error.inner().to_string());
        ApiError::invalid(vec![FieldError::new(field, error.inner().to_string())])
    })?;
    let mut faults = Faults::default();
    parsed.validate(&mut faults);
    faults.into_result()?;
    Ok(parsed)
}

/// PostgreSQL stores no NUL, neither in text nor in JSON.
fn find_nuls(value: &Value, at: &mut String, faults: &mut Faults) {
    let length = at.len();
    match value {
        Value::String(text) if text.contains('\0') => faults.add(at.clone(), "contains a NUL character"),
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                at.push_str(&format!("/{n}"));
                find_nuls(item, at, faults);
                at.truncate(length);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                at.push('/');
                at.push_str(&escape(&name.replace('\0', "\u{fffd}")));
                if name.contains('\0') {
                    faults.add(at.clone(), "has a name with a NUL character");
                }
                find_nuls(value, at, faults);
                at.truncate(length);
            }
        }
        _ => {}
    }
}

/// RFC 6901.
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn pointer(path: &serde_path_to_error::Path, message: &str) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => pointer.push_str(&format!("/{}", escape(key))),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    // serde names a missing or unknown field only in its message.
    let named = message.strip_prefix("missing field `").or_else(|| message.strip_prefix("unknown field `"));
    if let Some(name) = named.and_then(|rest| rest.split('`').next()) {
        let last = format!("/{}", escape(name));
        if !pointer.ends_with(&last) {
            pointer.push_str(&last);
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Body {
        name: String,
        #[serde(default)]
        items: Vec<Item>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Item {
        #[expect(dead_code, reason = "only read")]
        n: u8,
    }

    impl Validate for Body {
        fn validate(&self, faults: &mut Faults) {
            faults.text("/name", &self.name, 5);
            if self.items.len() > 2 {
                faults.add("/items", "at most 2");
            }
        }
    }

    fn refused(body: &str) -> (u16, Vec<String>) {
        let error = parse::<Body>(body.as_bytes()).expect_err("refused");
        let problem = error.problem();
        (problem.status, problem.errors.iter().map(|error| error.pointer.clone()).collect())
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        assert!(parse::<Body>(br#"{"name": "ada", "items": [{"n": 1}]}"#).is_ok());
        assert_eq!(refused(r#"{"name": "#), (400, vec![]));
        assert_eq!(refused("\u{1}"), (400, vec![]));
        assert_eq!(refused(r#"{"name": "ada", "more": 1}"#), (422, vec!["/more".to_owned()]));
        assert_eq!(refused(r#"{"items": []}"#), (422, vec!["/name".to_owned()]));
        assert_eq!(refused(r#"{"name": 1}"#), (422, vec!["/name".to_owned()]));
        assert_eq!(
            refused(r#"{"name": "ada", "items": [{"n": 1}, {"n": 256}]}"#),
            (422, vec!["/items/1/n".to_owned()])
        );
        assert_eq!(
            refused(r#"{"name": "adalovelace", "items": [{"n": 1}, {"n": 1}, {"n": 1}]}"#),
            (422, vec!["/name".to_owned(), "/items".to_owned()])
        );
    }

    #[test]
    fn a_nul_is_refused_wherever_it_stands() {
        assert_eq!(refused(r#"{"name": "a\u0000"}"#), (422, vec!["/name".to_owned()]));
        assert_eq!(refused(r#"{"name": "ada", "a\u0000/b": [1, "\u0000"]}"#).1.len(), 2);
    }
}
