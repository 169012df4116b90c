//! Parameters after the question mark, as strict as bodies.

use axum::{extract::FromRequestParts, http::request::Parts};
use serde::de::DeserializeOwned;

use super::body::{Faults, Validate};
use crate::problem::{ApiError, FieldError};

/// Every parameter is known and holds what it may hold.
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Validate> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parse(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn parse<T: DeserializeOwned + Validate>(query: &str) -> Result<T, ApiError> {
    let mut faults = Faults::default();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if name.contains('\0') || value.contains('\0') {
            faults.add(name.replace('\0', "\u{fffd}"), "contains a NUL character");
        }
    }
    faults.into_result()?;
    let pairs = serde_urlencoded::Deserializer::new(url::form_urlencoded::parse(query.as_bytes()));
    let parsed: T = serde_path_to_error::deserialize(pairs).map_err(|error| {
        let message = error.inner().to_string();
        let named = message.split('`').nth(1).filter(|_| message.contains("field `"));
        let name = named.map_or_else(|| error.path().to_string(), str::to_owned);
        ApiError::invalid(vec![FieldError::new(name, message)])
    })?;
    let mut faults = Faults::default();
    parsed.validate(&mut faults);
    faults.into_result()?;
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default, rename_all = "camelCase")]
    struct List {
        limit: Option<u32>,
        kind: Option<String>,
    }

    impl Validate for List {
        fn validate(&self, faults: &mut Faults) {
            if let Some(kind) = &self.kind {
                faults.text("kind", kind, 10);
            }
        }
    }

    fn refused(query: &str) -> (u16, String) {
        let error = parse::<List>(query).expect_err("refused");
        (error.problem().status, error.problem().errors[0].pointer.clone())
    }

    #[test]
    fn parameters_are_checked() {
        let list = parse::<List>("limit=5&kind=a%20b").expect("good");
        assert_eq!((list.limit, list.kind.as_deref()), (Some(5), Some("a b")));
        assert!(parse::<List>("").is_ok());
        assert_eq!(refused("limti=5"), (422, "limti".to_owned()));
        assert_eq!(refused("limit=five"), (422, "limit".to_owned()));
        assert_eq!(refused("limit=1&limit=2"), (422, "limit".to_owned()));
        assert_eq!(refused("kind=%00"), (422, "kind".to_owned()));
        assert_eq!(refused("kind="), (422, "kind".to_owned()));
    }
}
