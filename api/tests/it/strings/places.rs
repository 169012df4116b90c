//! Where the OpenAPI document says that a text may stand.

use serde_json::{Map, Value, json};

#[derive(Clone, Debug)]
pub enum Step {
    Field(String),
    Item,
}

/// From the whole of a body to a text in it.
pub type Place = Vec<Step>;

pub struct Schemas(Value);

impl Schemas {
    pub fn of(document: &str) -> Self {
        Self(serde_json::from_str(document).unwrap())
    }

    pub fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(at) => self.resolve(self.0.pointer(at.strip_prefix('#').unwrap()).unwrap()),
            None => schema,
        }
    }

    /// The schemas that something may be of.
    fn forms<'a>(&'a self, schema: &'a Value) -> Vec<&'a Value> {
        let schema = self.resolve(schema);
        let several = ["oneOf", "anyOf", "allOf"].into_iter().find_map(|name| schema[name].as_array());
        match several {
            Some(forms) => forms.iter().flat_map(|form| self.forms(form)).collect(),
            None => vec![schema],
        }
    }

    pub fn is_text(&self, schema: &Value) -> bool {
        self.forms(schema).into_iter().any(|form| is(form, "string") || is_anything(form))
    }

    pub fn places(&self, schema: &Value) -> Vec<Place> {
        let mut places = Vec::new();
        self.find(schema, &mut Vec::new(), &mut places);
        places
    }

    fn find(&self, schema: &Value, here: &mut Place, places: &mut Vec<Place>) {
        assert!(here.len() < 10, "{here:?}");
        if self.is_text(schema) {
            places.push(here.clone());
        }
        for form in self.forms(schema) {
            if let Some(fields) = form["properties"].as_object() {
                for (name, field) in fields {
                    here.push(Step::Field(name.clone()));
                    self.find(field, here, places);
                    here.pop();
                }
            } else if is(form, "object") || is_anything(form) {
                // Whatever somebody likes: deep in it too, and as a name.
                places.push([here.as_slice(), &[Step::Field("a".to_owned()), Step::Item]].concat());
            }
            if is(form, "array") {
                here.push(Step::Item);
                self.find(&form["items"], here, places);
                here.pop();
            }
        }
    }

    /// Something that fits.
    fn sample(&self, schema: &Value) -> Value {
        let form = self.forms(schema)[0];
        if let Some(first) = form["enum"].get(0) {
            return first.clone();
        }
        if is(form, "string") {
            return "fine".into();
        }
        let required = form["required"].as_array().map(Vec::as_slice).unwrap_or_default();
        let name = |name: &Value| name.as_str().unwrap().to_owned();
        let fields =
            required.iter().map(|field| (name(field), self.sample(&form["properties"][name(field)])));
        if is(form, "object") { Value::Object(fields.collect()) } else { Value::Null }
    }

    /// The body with a text in this place, and around it what must be there.
    pub fn put(&self, body: &mut Value, schema: &Value, place: &[Step], text: &str) {
        let Some((step, rest)) = place.split_first() else {
            *body = text.into();
            return;
        };
        let forms = self.forms(schema);
        match step {
            Step::Field(name) => {
                if !body.is_object() {
                    *body = Value::Object(Map::new());
                }
                let field =
                    forms.iter().find_map(|form| form["properties"].get(name)).unwrap_or(&Value::Null);
                self.put(&mut body[name], field, rest, text);
            }
            Step::Item => {
                let items = forms.iter().find_map(|form| form.get("items")).unwrap_or(&Value::Null);
                let mut item = if items.is_null() { Value::Null } else { self.sample(items) };
                self.put(&mut item, items, rest, text);
                *body = json!([item]);
            }
        }
    }
}

fn is(schema: &Value, kind: &str) -> bool {
    match &schema["type"] {
        Value::String(name) => name == kind,
        Value::Array(names) => names.iter().any(|name| name == kind),
        _ => false,
    }
}

fn is_anything(schema: &Value) -> bool {
    schema
        .as_object()
        .is_some_and(|schema| !schema.contains_key("type") && !schema.contains_key("properties"))
}

#[test]
fn texts_are_found_wherever_they_may_stand() {
    let schemas = Schemas::of(&streamspace_api::openapi_json());
    let body = json!({ "$ref": "#/components/schemas/IdentityProviderBody" });
    let places = schemas.places(&body);
    let filled: Vec<_> = places
        .iter()
        .map(|place| {
            let mut filled = json!({});
            schemas.put(&mut filled, &body, place, "x");
            filled
        })
        .collect();
    for expected in [
        json!({ "name": "x" }),
        json!({ "displayName": "x" }),
        json!({ "clientSecret": "x" }),
        json!({ "scopes": ["x"] }),
        json!({ "defaultRole": "x" }),
        json!({ "groupMapping": [{ "group": "x" }] }),
        json!({ "groupMapping": [{ "group": "fine", "teamId": "x" }] }),
    ] {
        assert!(filled.contains(&expected), "{expected} in {filled:?}");
    }
    let schedule = schemas.places(&json!({ "$ref": "#/components/schemas/ScheduleBody" }));
    assert!(schedule.len() > 9, "{schedule:?}");
}
