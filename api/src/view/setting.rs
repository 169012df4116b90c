use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use streamspace_domain::settings;
use utoipa::ToSchema;

use super::CreatedBy;

/// What holds for a key in the tenant.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    #[schema(example = "auth.mfa_required")]
    pub key: &'static str,
    /// `null`: nothing is set, and nothing by default.
    pub value: Value,
    /// What the value may be: `boolean` or `text`.
    #[serde(rename = "type")]
    #[schema(example = "boolean")]
    pub form: &'static str,
    #[schema(example = "auth")]
    pub category: &'static str,
    pub description: &'static str,
    pub default: Value,
    pub source: SettingSource,
    /// When it was last set or returned to the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_by: Option<CreatedBy>,
}

/// Who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SettingSource {
    Default,
    Tenant,
}

impl From<settings::Setting> for Setting {
    fn from(setting: settings::Setting) -> Self {
        Self {
            key: setting.known.key,
            form: setting.known.form.as_str(),
            category: setting.known.category(),
            description: setting.known.description,
            source: if setting.of_tenant { SettingSource::Tenant } else { SettingSource::Default },
            value: setting.value,
            default: setting.default,
            updated_at: setting.updated_at,
            updated_by: setting.updated_by.map(CreatedBy::from),
        }
    }
}
