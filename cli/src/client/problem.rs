//! A server's refusal, as a person reads it (RFC 9457).

use std::fmt;

use serde::Deserialize;

use super::text::{clean, clean_lines};

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Problem {
    /// Stable: `/problems/tenant-required`.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: Option<String>,
    pub request_id: Option<String>,
    pub errors: Vec<FieldError>,
    pub limit: Option<f64>,
    pub used: Option<f64>,
    pub requested: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct FieldError {
    /// A JSON pointer into the body, or a parameter's name.
    pub pointer: String,
    pub detail: String,
}

impl Problem {
    pub fn is(&self, name: &str) -> bool {
        self.kind.strip_prefix("/problems/") == Some(name)
    }

    /// With one wrong field the detail says what the field's line says.
    fn repeats_its_error(&self, detail: &str) -> bool {
        matches!(self.errors.as_slice(), [only] if detail.ends_with(&only.detail))
    }

    /// What the key would need: the server tells it in its sentence alone.
    pub fn missing_scope(&self) -> Option<&str> {
        let (_, scope) = self.detail.as_deref()?.split_once("has no scope ")?;
        let is_scope = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        (!scope.is_empty() && scope.chars().all(is_scope)).then_some(scope)
    }

    /// What an answer says that is no problem+json, as a proxy's is.
    pub fn of_status(status: reqwest::StatusCode) -> Self {
        let title = status.canonical_reason().unwrap_or("The request failed");
        Self { title: format!("{title} ({})", status.as_u16()), status: status.as_u16(), ..Self::default() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail =
            self.detail.as_deref().filter(|detail| !self.repeats_its_error(detail)).unwrap_or_default();
        match (self.title.is_empty(), detail.is_empty()) {
            (true, true) => write!(f, "the server answered {}", self.status)?,
            (true, false) => f.write_str(&clean_lines(detail))?,
            (false, true) => f.write_str(&clean(&self.title))?,
            (false, false) => write!(f, "{}: {}", clean(&self.title), clean_lines(detail))?,
        }
        for error in &self.errors {
            match field(&error.pointer) {
                "" => write!(f, "\n  {}", clean(&error.detail))?,
                field => write!(f, "\n  {}: {}", clean(field), clean(&error.detail))?,
            }
        }
        if let (Some(limit), Some(used)) = (self.limit, self.used) {
            write!(f, "\n  used {used} of {limit}")?;
            if let Some(requested) = self.requested {
                write!(f, ", {requested} more requested")?;
            }
        }
        if let Some(id) = self.request_id.as_deref().filter(|id| !id.is_empty()) {
            write!(f, "\n  request id: {}", clean(id))?;
        }
        Ok(())
    }
}

/// `/cron` or `#/cron` is the field `cron`; what is nested stays a path.
fn field(pointer: &str) -> &str {
    pointer.trim_start_matches('#').trim_start_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_as_text() {
        let problem: Problem = serde_json::from_str(
            r##"{"type": "/problems/validation", "title": "Invalid request", "status": 422,
                "detail": "Two fields are wrong.", "instance": "/api/v1/schedules", "requestId": "0199",
                "errors": [{"pointer": "/cron", "detail": "five fields are expected"},
                           {"pointer": "#/arguments/id", "detail": "is no UUID"}]}"##,
        )
        .expect("valid");
        assert_eq!(
            problem.to_string(),
            "Invalid request: Two fields are wrong.\n  cron: five fields are expected\
             \n  arguments/id: is no UUID\n  request id: 0199"
        );
    }

    #[test]
    fn one_wrong_field_is_told_once() {
        let problem: Problem = serde_json::from_str(
            r#"{"title": "The request is not valid", "detail": "/cron: no time", "errors": [{"pointer": "/cron", "detail": "no time"}]}"#,
        )
        .expect("valid");
        assert_eq!(problem.to_string(), "The request is not valid\n  cron: no time");
    }

    #[test]
    fn a_quota_tells_its_numbers_and_a_bare_status_its_name() {
        let quota: Problem = serde_json::from_str(
            r#"{"title": "Quota exceeded", "status": 403, "limit": 5, "used": 5, "requested": 1}"#,
        )
        .expect("valid");
        assert_eq!(quota.to_string(), "Quota exceeded\n  used 5 of 5, 1 more requested");
        assert_eq!(Problem::of_status(reqwest::StatusCode::BAD_GATEWAY).to_string(), "Bad Gateway (502)");
    }

    #[test]
    fn a_problem_cannot_drive_the_terminal() {
        let problem =
            Problem { title: "a\u{1b}[31m".into(), detail: Some("b\u{7}".into()), ..Problem::default() };
        assert_eq!(problem.to_string(), "a [31m: b ");
    }
}
