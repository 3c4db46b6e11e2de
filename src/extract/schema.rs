//! The type's JSON Schema, reduced to what the API accepts.
//!
//! Nothing is lost silently: each keyword is sent, or moved into the description and checked on the answer, or
//! refused before anything is sent. The whole schema, unreduced, is what the answer is checked against.

use std::fmt;

use jsonschema::Validator;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

// What `responseJsonSchema` takes, by the comment in Google's proto.
const SENT: &[&str] = &[
    "$anchor",
    "$defs",
    "$id",
    "$ref",
    "additionalProperties",
    "anyOf",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maximum",
    "minItems",
    "minimum",
    "oneOf",
    "prefixItems",
    "properties",
    "propertyOrdering",
    "required",
    "title",
    "type",
];

// What it does not take, but words can say.
const DESCRIBED: &[(&str, &str)] = &[
    ("const", "must be"),
    ("contentEncoding", "content encoding"),
    ("contentMediaType", "content media type"),
    ("default", "default"),
    ("examples", "examples"),
    ("exclusiveMaximum", "must be less than"),
    ("exclusiveMinimum", "must be greater than"),
    ("maxLength", "maximum length"),
    ("maxProperties", "maximum number of properties"),
    ("minLength", "minimum length"),
    ("minProperties", "minimum number of properties"),
    ("multipleOf", "must be a multiple of"),
    ("pattern", "must match the regular expression"),
    ("uniqueItems", "items must be unique"),
];

// What says nothing about the value.
const MUTE: &[&str] = &["$schema", "$comment", "deprecated", "readOnly", "writeOnly"];

const FORMATS: &[&str] = &["date-time", "date", "time", "duration", "enum", "int32", "int64", "float", "double"];

/// A type whose schema cannot be put to Gemini without losing something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaError {
    path: String,
    problem: String,
}

impl SchemaError {
    fn new(path: &str, problem: impl Into<String>) -> Self {
        Self { path: path.to_owned(), problem: problem.into() }
    }

    /// Where in the schema, as a JSON pointer.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the schema at {:?}: {}", self.path, self.problem)
    }
}

impl std::error::Error for SchemaError {}

#[derive(Debug)]
pub(super) struct Schema {
    pub(super) sent: Value,
    pub(super) validator: Validator,
}

impl Schema {
    pub(super) fn of<T: JsonSchema>() -> Result<Self, SchemaError> {
        let whole = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value();
        // Draft 2020-12 takes formats for remarks, unless told otherwise.
        let validator = jsonschema::options().should_validate_formats(true).build(&whole);
        let validator = validator.map_err(|error| SchemaError::new("", error.to_string()))?;
        let mut merged = whole.clone();
        merge(&mut merged, &whole, &mut Vec::new());
        Ok(Self { sent: reduce(&merged, "")?, validator })
    }
}

fn reduce(schema: &Value, path: &str) -> Result<Value, SchemaError> {
    let schema = match schema {
        Value::Object(schema) => schema,
        // `true` allows anything.
        Value::Bool(true) => return Ok(json!({})),
        _ => return Err(SchemaError::new(path, "nothing can fit it")),
    };
    let mut sent = Map::new();
    let mut notes = Vec::new();
    let is_ref = schema.contains_key("$ref");
    for (keyword, value) in schema {
        let at = format!("{path}/{keyword}");
        match keyword.as_str() {
            mute if MUTE.contains(&mute) => {}
            "$defs" | "properties" => {
                sent.insert(keyword.clone(), each(value, &at)?);
            }
            "items" | "additionalProperties" if value.is_boolean() => {
                sent.insert(keyword.clone(), value.clone());
            }
            "items" | "additionalProperties" => {
                sent.insert(keyword.clone(), reduce(value, &at)?);
            }
            "anyOf" | "oneOf" | "prefixItems" => {
                let list = value.as_array().into_iter().flatten().enumerate();
                let list: Result<Vec<_>, _> = list.map(|(i, value)| reduce(value, &format!("{at}/{i}"))).collect();
                sent.insert(keyword.clone(), list?.into());
            }
            "const" if (value.is_string() || value.is_number()) && !schema.contains_key("enum") => {
                sent.insert("enum".to_owned(), json!([value]));
            }
            "enum" if !is_enum(value) => notes.push(format!("must be one of {value}")),
            // Formats of schemars' own say how wide a Rust integer is: its bounds are sent, its width is checked.
            "format" if value.as_str().is_some_and(is_rust_integer) => {}
            "format" if !value.as_str().is_some_and(|format| FORMATS.contains(&format)) => {
                notes.push(format!("format: {}", plain(value)));
            }
            sendable if SENT.contains(&sendable) => {
                sent.insert(keyword.clone(), value.clone());
            }
            other => match DESCRIBED.iter().find(|(keyword, _)| *keyword == other) {
                Some((_, words)) => notes.push(format!("{words}: {}", plain(value))),
                None => {
                    let problem = format!("Gemini has no word for `{other}`; give the type another shape");
                    return Err(SchemaError::new(&at, problem));
                }
            },
        }
    }
    if is_ref {
        // Only a description may stand beside a reference.
        let beside: Vec<_> =
            sent.keys().filter(|key| !["$ref", "$defs", "description"].contains(&key.as_str())).cloned().collect();
        for keyword in beside {
            if let Some(value) = sent.remove(&keyword) {
                notes.push(format!("{keyword}: {}", plain(&value)));
            }
        }
    }
    if let Some(order) = ordering(schema).filter(|_| !is_ref && !schema.contains_key("propertyOrdering")) {
        sent.insert("propertyOrdering".to_owned(), order);
    }
    if !notes.is_empty() {
        let notes = notes.join("; ");
        let described = match sent.get("description").and_then(Value::as_str) {
            Some(description) => format!("{description} ({notes})"),
            None => format!("({notes})"),
        };
        sent.insert("description".to_owned(), described.into());
    }
    Ok(Value::Object(sent))
}

// Properties beside a reference, as those of an enum with a tag whose variants are structs, become one object with what is referred
// to: the API takes none there, and a model writes no property that is only described. What is referred to may be a reference
// itself, or hold more such places; `within` are the names of those that a place is in, which end what goes in circles.
fn merge<'a>(schema: &mut Value, whole: &'a Value, within: &mut Vec<&'a str>) {
    let depth = within.len();
    match schema {
        Value::Object(fields) => {
            while let Some((name, target)) = beside_properties(fields, whole).filter(|(name, _)| !within.contains(name))
            {
                within.push(name);
                fields.remove("$ref");
                merge_into(fields, target);
            }
            fields.values_mut().for_each(|value| merge(value, whole, within));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| merge(value, whole, within)),
        _ => {}
    }
    within.truncate(depth);
}

// What is referred to beside properties, by its name.
fn beside_properties<'a>(fields: &Map<String, Value>, whole: &'a Value) -> Option<(&'a str, &'a Map<String, Value>)> {
    let name = fields.get("$ref").filter(|_| fields.contains_key("properties"))?.as_str()?.strip_prefix("#/$defs/")?;
    let (name, target) = whole.get("$defs")?.as_object()?.get_key_value(name)?;
    Some((name, target.as_object()?))
}

fn merge_into(fields: &mut Map<String, Value>, more: &Map<String, Value>) {
    for (keyword, more) in more {
        match (fields.get_mut(keyword), more) {
            (None, more) => _ = fields.insert(keyword.clone(), more.clone()),
            (Some(Value::Object(own)), Value::Object(more)) => {
                more.iter().for_each(|(name, value)| _ = own.entry(name.clone()).or_insert_with(|| value.clone()));
            }
            (Some(Value::Array(own)), Value::Array(more)) => {
                let more: Vec<_> = more.iter().filter(|value| !own.contains(value)).cloned().collect();
                own.extend(more);
            }
            (Some(Value::String(own)), Value::String(more)) if keyword == "description" => {
                own.push('\n');
                own.push_str(more);
            }
            // Where both say something of the whole, such as its name, the place goes before the type.
            _ => {}
        }
    }
}

fn each(schemas: &Value, path: &str) -> Result<Value, SchemaError> {
    let schemas = schemas.as_object().into_iter().flatten();
    let reduced = schemas.map(|(name, schema)| Ok((name.clone(), reduce(schema, &format!("{path}/{name}"))?)));
    reduced.collect::<Result<Map<_, _>, _>>().map(Value::Object)
}

// `required` keeps the order of declaration, which `properties` may have lost; answers come out better in that order.
fn ordering(schema: &Map<String, Value>) -> Option<Value> {
    let properties = schema.get("properties")?.as_object()?;
    let required: Vec<_> = schema.get("required").and_then(Value::as_array).into_iter().flatten().collect();
    let optional = properties.keys().filter(|name| !required.iter().any(|required| *required == name.as_str()));
    let order: Vec<Value> =
        required.iter().map(|name| (*name).clone()).chain(optional.map(|name| name.as_str().into())).collect();
    (!order.is_empty()).then(|| order.into())
}

fn is_enum(value: &Value) -> bool {
    value.as_array().is_some_and(|values| values.iter().all(|value| value.is_string() || value.is_number()))
}

fn is_rust_integer(format: &str) -> bool {
    let width = format.strip_prefix('u').unwrap_or(format).strip_prefix("int");
    width.is_some_and(|width| format != "int32" && format != "int64" && width.bytes().all(|byte| byte.is_ascii_digit()))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is of interest")]
    struct Invoice {
        /// As printed.
        #[schemars(regex(pattern = "^[A-Z]{2}[0-9]+$"), length(max = 12))]
        number: String,
        #[schemars(range(min = 1, max = 99))]
        copies: u8,
        a_note: Option<String>,
        state: State,
        lines: Vec<Line>,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is of interest")]
    enum State {
        Open,
        Paid { on: String },
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is of interest")]
    struct Line {
        net: f64,
        parts: Vec<Line>,
    }

    fn keywords(schema: &Value, found: &mut Vec<String>) {
        let Value::Object(schema) = schema else { return };
        for (keyword, value) in schema {
            found.push(keyword.clone());
            match keyword.as_str() {
                "$defs" | "properties" => value.as_object().unwrap().values().for_each(|value| keywords(value, found)),
                "anyOf" | "oneOf" => value.as_array().unwrap().iter().for_each(|value| keywords(value, found)),
                "items" => keywords(value, found),
                _ => {}
            }
        }
    }

    #[test]
    fn every_keyword_is_one_that_gemini_takes() {
        let mut found = Vec::new();
        keywords(&Schema::of::<Invoice>().unwrap().sent, &mut found);
        assert!(found.iter().all(|keyword| SENT.contains(&keyword.as_str())), "{found:?}");
    }

    #[test]
    fn what_cannot_be_sent_is_said_in_words_and_still_checked() {
        let schema = Schema::of::<Invoice>().unwrap();
        let number = &schema.sent["properties"]["number"];
        let words = number["description"].as_str().unwrap();
        assert!(
            words.starts_with("As printed. (") && words.contains("^[A-Z]{2}[0-9]+$") && words.contains("12"),
            "{words}"
        );
        assert_eq!(schema.sent["properties"]["copies"], json!({"type": "integer", "minimum": 1, "maximum": 99}));
        let answer = json!({"number": "x", "copies": 0, "state": "Open", "lines": []});
        assert_eq!(schema.validator.iter_errors(&answer).count(), 2);
    }

    #[test]
    fn properties_keep_the_order_of_declaration() {
        let order = &Schema::of::<Invoice>().unwrap().sent["propertyOrdering"];
        assert_eq!(*order, json!(["number", "copies", "state", "lines", "a_note"]));
    }

    #[test]
    fn what_can_neither_be_sent_nor_said_is_refused() {
        for (schema, path) in [
            (json!({"not": {}}), "/not"),
            (json!({"properties": {"a": {"allOf": []}}}), "/properties/a/allOf"),
            (json!({"items": {"anyOf": [{"if": {}}]}}), "/items/anyOf/0/if"),
            (json!({"properties": {"a": false}}), "/properties/a"),
        ] {
            assert_eq!(reduce(&schema, "").unwrap_err().path(), path);
        }
    }

    #[test]
    fn only_a_description_stands_beside_a_reference() {
        let reduced =
            reduce(&json!({"$ref": "#/$defs/X", "title": "X", "minimum": 3, "description": "d"}), "").unwrap();
        assert_eq!(reduced, json!({"$ref": "#/$defs/X", "description": "d (minimum: 3; title: X)"}));
    }

    #[derive(JsonSchema)]
    #[serde(tag = "kind")]
    #[expect(dead_code, reason = "only its schema is of interest")]
    enum Payment {
        /// By card.
        Card(Card),
        Cash,
    }

    /// Of plastic.
    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is of interest")]
    struct Card {
        number: String,
    }

    #[test]
    fn the_tag_of_an_enum_is_among_what_may_be_written() {
        let sent = Schema::of::<Payment>().unwrap().sent;
        assert_eq!(
            sent["oneOf"][0],
            json!({
                "description": "By card.\nOf plastic.",
                "type": "object",
                "properties": {"kind": {"type": "string", "enum": ["Card"]}, "number": {"type": "string"}},
                "required": ["kind", "number"],
                "propertyOrdering": ["kind", "number"],
            })
        );
    }

    #[test]
    fn an_order_that_was_asked_for_is_kept() {
        let schema = json!({"properties": {"a": {}, "b": {}}, "required": ["a"], "propertyOrdering": ["b", "a"]});
        assert_eq!(reduce(&schema, "").unwrap()["propertyOrdering"], json!(["b", "a"]));
        let reference = json!({"$ref": "#/$defs/X", "properties": {"a": {}}});
        assert!(reduce(&reference, "").unwrap().get("propertyOrdering").is_none());
    }

    #[test]
    fn odd_constants_and_formats_are_kept_in_words() {
        let both = json!({"const": "b", "enum": ["a", "b"]});
        assert_eq!(reduce(&both, "").unwrap(), json!({"enum": ["a", "b"], "description": "(must be: b)"}));
        assert_eq!(reduce(&json!({"const": "a"}), "").unwrap(), json!({"enum": ["a"]}));
        assert_eq!(reduce(&json!({"const": true}), "").unwrap(), json!({"description": "(must be: true)"}));
        assert_eq!(reduce(&json!({"format": "uuid"}), "").unwrap(), json!({"description": "(format: uuid)"}));
        assert_eq!(reduce(&json!({"format": "uint16"}), "").unwrap(), json!({}));
        assert_eq!(reduce(&json!(true), "").unwrap(), json!({}));
    }
}
