//! The contract's values as JSON: fields in `snake_case`, the cases of enums and variants as WIT spells them (`not-found`).

use serde::ser::{Error as _, Impossible, Serialize, SerializeSeq, SerializeStruct, Serializer};
use serde_json::{Error, Map, Value};

/// A value of the contract as JSON. Fails for types that the contract does not have.
pub fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<Value, Error> {
    value.serialize(Writer)
}

/// `NotFound`, as the generated types name it, is `not-found` in the contract.
fn kebab(name: &str) -> String {
    let mut word = String::with_capacity(name.len() + 4);
    for (index, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && index > 0 {
            word.push('-');
        }
        word.push(letter.to_ascii_lowercase());
    }
    word
}

struct Writer;

macro_rules! scalars {
    ($($method:ident: $type:ty),*) => {
        $(fn $method(self, value: $type) -> Result<Value, Error> {
            serde_json::to_value(value)
        })*
    };
}

macro_rules! absent {
    ($($method:ident($($type:ty),*) -> $result:ty;)*) => {
        $(fn $method(self, $(_: $type),*) -> Result<$result, Error> {
            Err(Error::custom(concat!("the contract has no type for ", stringify!($method))))
        })*
    };
}

impl Serializer for Writer {
    type Ok = Value;
    type Error = Error;
    type SerializeSeq = Sequence;
    type SerializeStruct = Record;
    type SerializeTuple = Impossible<Value, Error>;
    type SerializeTupleStruct = Impossible<Value, Error>;
    type SerializeTupleVariant = Impossible<Value, Error>;
    type SerializeMap = Impossible<Value, Error>;
    type SerializeStructVariant = Impossible<Value, Error>;

    scalars! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_u8: u8,
        serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_f32: f32, serialize_f64: f64, serialize_char: char,
        serialize_str: &str
    }

    absent! {
        serialize_bytes(&[u8]) -> Value;
        serialize_unit_struct(&'static str) -> Value;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
    }

    fn serialize_none(self) -> Result<Value, Error> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Value, Error> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, case: &'static str) -> Result<Value, Error> {
        Ok(Value::String(kebab(case)))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Value, Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        case: &'static str,
        value: &T,
    ) -> Result<Value, Error> {
        Ok(Value::Object(Map::from_iter([(kebab(case), value.serialize(Self)?)])))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Sequence, Error> {
        Ok(Sequence(Vec::new()))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Record, Error> {
        Ok(Record(Map::new()))
    }
}

struct Sequence(Vec<Value>);

impl SerializeSeq for Sequence {
    type Ok = Value;
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.0.push(value.serialize(Writer)?);
        Ok(())
    }

    fn end(self) -> Result<Value, Error> {
        Ok(Value::Array(self.0))
    }
}

struct Record(Map<String, Value>);

impl SerializeStruct for Record {
    type Ok = Value;
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        self.0.insert(name.to_owned(), value.serialize(Writer)?);
        Ok(())
    }

    fn end(self) -> Result<Value, Error> {
        Ok(Value::Object(self.0))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin::contract::{Effect, Money, Outcome, Problem, ProblemKind, Retry, Service, State};

    #[test]
    fn values_read_as_the_contract_is_written() {
        let problem = Problem {
            kind: ProblemKind::NotFound,
            effect: Effect::None,
            retry: Retry::AfterMs(500),
            message: "NotFound stays as it is in text".to_owned(),
            public_message: None,
            field: None,
            provider_code: None,
            remote_id: None,
        };
        assert_eq!(
            to_json(&problem).unwrap(),
            json!({
                "kind": "not-found", "effect": "none", "retry": {"after-ms": 500}, "message": "NotFound stays as it is in text",
                "public_message": null, "field": null, "provider_code": null, "remote_id": null
            })
        );
        let service = Service {
            remote_id: "service/1".to_owned(),
            state: State::Active,
            plan: Some("vps".to_owned()),
            domain: None,
            addresses: vec!["192.0.2.1".to_owned()],
            due_at: None,
            properties: Vec::new(),
        };
        assert_eq!(to_json(&Outcome::Done(service)).unwrap()["done"]["state"], json!("active"));
        assert_eq!(to_json(&Retry::AfterFix).unwrap(), json!("after-fix"));
        assert_eq!(to_json(&vec![Money { minor: -5, currency: None }]).unwrap(), json!([{"minor": -5, "currency": null}]));
    }
}
