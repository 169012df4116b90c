//! What must not be read in the audit, by anyone, ever.

use serde_json::Value;

const MASK: &str = "[hidden]";

/// Names whose values are secrets, wherever they stand in a change.
const SECRET: [&str; 8] =
    ["secret", "password", "token", "apikey", "privatekey", "credential", "authorization", "cookie"];

/// Replaces the values of all fields that are named like a secret.
pub(super) fn mask(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if is_secret(name) && !value.is_null() {
                    *value = Value::from(MASK);
                } else {
                    mask(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        _ => {}
    }
}

fn is_secret(name: &str) -> bool {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|secret| name.contains(secret))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_masked_at_any_depth() {
        let mut change = json!({
            "name": "mail",
            "config": { "smtp_password": "x", "hosts": [{ "apiKey": "y", "port": 25 }] },
            "clientSecret": { "value": "z" },
            "webhookToken": null,
        });
        mask(&mut change);
        assert_eq!(
            change,
            json!({
                "name": "mail",
                "config": { "smtp_password": MASK, "hosts": [{ "apiKey": MASK, "port": 25 }] },
                "clientSecret": MASK,
                "webhookToken": null,
            })
        );
    }
}
