//! Which settings there are: one line each, with everything that is known of it.
//!
//! A key stands here when something reads it, and not before: no setting is without effect.

use serde_json::Value;
use streamspace_common::Config;

/// What the installation's configuration says where a tenant says nothing.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    pub mfa_required: bool,
}

impl From<&Config> for Defaults {
    fn from(config: &Config) -> Self {
        Self { mfa_required: config.auth.mfa_required }
    }
}

#[derive(Debug)]
pub struct Known {
    /// `<category>.<name>`.
    pub key: &'static str,
    pub form: Form,
    pub description: &'static str,
    default: fn(&Defaults) -> Value,
}

pub(crate) const MFA_REQUIRED: Known = Known {
    key: "auth.mfa_required",
    form: Form::Boolean,
    description: "Whether signing in takes a second factor.",
    default: |defaults| defaults.mfa_required.into(),
};

/// By their keys.
pub static KNOWN: [Known; 2] = [
    MFA_REQUIRED,
    Known {
        key: "ui.announcement",
        form: Form::Text { most: 2000 },
        description: "What everybody in the tenant reads at the top of the web UI.",
        default: |_| Value::Null,
    },
];

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Boolean,
    /// So many characters, on one line or several.
    Text {
        most: usize,
    },
}

impl Known {
    pub fn find(key: &str) -> Option<&'static Self> {
        KNOWN.iter().find(|known| known.key == key)
    }

    pub fn category(&self) -> &'static str {
        self.key.split('.').next().unwrap_or(self.key)
    }

    pub(super) fn default(&self, defaults: &Defaults) -> Value {
        (self.default)(defaults)
    }
}

impl Form {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Text { .. } => "text",
        }
    }

    /// Whether a value has it; else what is wrong.
    pub(super) fn check(self, value: &Value) -> Result<(), String> {
        match (self, value) {
            (Self::Boolean, Value::Bool(_)) => Ok(()),
            (Self::Boolean, _) => Err("must be true or false, or null for the default".to_owned()),
            (Self::Text { most }, Value::String(text)) => check_text(text, most),
            (Self::Text { .. }, _) => Err("must be text, or null for the default".to_owned()),
        }
    }
}

fn check_text(text: &str, most: usize) -> Result<(), String> {
    let length = text.chars().count();
    if text.trim().is_empty() {
        return Err("must not be empty; null returns to the default".to_owned());
    }
    if length > most {
        return Err(format!("has {length} characters, may have {most}"));
    }
    if text.chars().any(|c| c.is_control() && c != '\n') {
        return Err("contains a control character".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_in_order_and_have_a_category() {
        assert!(KNOWN.iter().map(|known| known.key).is_sorted_by(|a, b| a < b));
        for known in &KNOWN {
            let (category, name) = known.key.split_once('.').expect("a category and a name");
            assert!(category == known.category() && !name.is_empty() && known.key.len() <= 64);
        }
    }

    #[test]
    fn a_default_has_the_form_of_its_setting() {
        for known in &KNOWN {
            let default = known.default(&Defaults::default());
            assert!(default.is_null() || known.form.check(&default).is_ok(), "{}", known.key);
        }
    }

    #[test]
    fn values_are_checked() {
        let text = Form::Text { most: 5 };
        assert!(text.check(&json!("a\nb")).is_ok() && Form::Boolean.check(&json!(false)).is_ok());
        for wrong in [json!(""), json!(" "), json!("größer"), json!("a\u{7}"), json!(5), json!(["a"])] {
            assert!(text.check(&wrong).is_err(), "{wrong}");
        }
        for wrong in [json!("true"), json!(1), json!({})] {
            assert!(Form::Boolean.check(&wrong).is_err(), "{wrong}");
        }
    }
}
