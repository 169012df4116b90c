use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use streamspace_domain::audit::Record;
use utoipa::ToSchema;
use uuid::Uuid;

/// One change, or something else that is worth knowing.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditRecord {
    pub id: Uuid,
    pub timestamp: Timestamp,
    /// The person behind it, also when a key or a schedule of theirs acted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Uuid>,
    pub actor: Actor,
    #[schema(example = "schedules.update")]
    pub action: String,
    #[schema(example = "schedule")]
    pub resource_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_id: Option<String>,
    pub changes: Changes,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Actor {
    /// `user`, `api_key`, `schedule`, `job` or `system`.
    #[serde(rename = "type")]
    #[schema(example = "api_key")]
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
}

/// What was, and what is. Secrets are masked.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Changes {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

impl From<Record> for AuditRecord {
    fn from(record: Record) -> Self {
        Self {
            id: record.id,
            timestamp: record.at,
            user: record.user.map(|user| user.0),
            actor: Actor { kind: record.actor_type, id: record.actor_id },
            action: record.action,
            resource_type: record.resource_type,
            resource_id: record.resource_id,
            changes: Changes { before: record.before, after: record.after },
            ip: record.ip,
            request_id: record.request_id,
        }
    }
}

impl AuditRecord {
    pub const CSV_HEAD: &'static str =
        "id,timestamp,user,actorType,actorId,action,resourceType,resourceId,before,after,ip,requestId\r\n";

    /// RFC 4180.
    pub fn write_csv(&self, line: &mut String) {
        let id = |id: &Option<Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
        let json = |value: &Option<Value>| value.as_ref().map(Value::to_string).unwrap_or_default();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let fields = [
            self.id.to_string(),
            self.timestamp.to_string(),
            id(&self.user),
            self.actor.kind.clone(),
            id(&self.actor.id),
            self.action.clone(),
            self.resource_type.clone(),
            text(&self.resource_id),
            json(&self.changes.before),
            json(&self.changes.after),
            text(&self.ip),
            text(&self.request_id),
        ];
        for (n, field) in fields.iter().enumerate() {
            if n > 0 {
                line.push(',');
            }
            if field.contains(['"', ',', '\r', '\n']) {
                line.push('"');
                line.push_str(&field.replace('"', "\"\""));
                line.push('"');
            } else {
                line.push_str(field);
            }
        }
        line.push_str("\r\n");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_of_csv_quotes_what_has_to_be() {
        let record = AuditRecord {
            id: Uuid::nil(),
            timestamp: Timestamp::UNIX_EPOCH,
            user: None,
            actor: Actor { kind: "system".to_owned(), id: None },
            action: "a.b".to_owned(),
            resource_type: "thing".to_owned(),
            resource_id: Some("x\r\ny".to_owned()),
            changes: Changes { before: None, after: Some(json!({ "a": "b,c" })) },
            ip: None,
            request_id: Some("r".to_owned()),
        };
        let mut line = String::new();
        record.write_csv(&mut line);
        assert_eq!(
            line,
            "00000000-0000-0000-0000-000000000000,1970-01-01T00:00:00Z,,system,,a.b,thing,\"x\r\ny\",,\
             \"{\"\"a\"\":\"\"b,c\"\"}\",,r\r\n"
        );
        assert_eq!(AuditRecord::CSV_HEAD.matches(',').count(), 11);
    }
}
