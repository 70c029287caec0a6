//! A schedule or trigger as it was put, and its form as a value of a document.

use std::{borrow::Borrow, collections::BTreeMap, sync::Arc};

use edgeward_model::{EdgeError, ErrorKind, Value};
use edgeward_sync::Document;
use serde::{Deserialize, Serialize};

use super::Allotted;
use crate::stored;

/// Version of a record's form. A newer one is refused.
const FORMAT: u32 = 1;

/// What is wanted, and the generation of that wish.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record<T> {
    /// Grows with every change of one of its kind where it was put, and is never used twice.
    pub generation: u64,
    /// The generation with which one of this id came to be: one that was removed and made anew is another. Not for people.
    #[serde(default, skip_serializing)]
    pub since: u64,
    /// What is wanted.
    #[serde(flatten)]
    pub wanted: T,
}

/// Records of a kind, by id.
pub(crate) type Records<T> = BTreeMap<<T as Allotted>::Id, Arc<Record<T>>>;

#[derive(Serialize)]
struct Stored<'a, T> {
    format: u32,
    since: u64,
    #[serde(flatten)]
    record: &'a Record<T>,
}

/// The part of a record that every release can read.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// A record as a value.
pub(crate) fn to_value<T: Allotted>(record: &Record<T>) -> Result<Value, EdgeError> {
    stored::to_value(&Stored { format: FORMAT, since: record.since, record })
}

/// Reads the value of this key.
pub(crate) fn of_value<T: Allotted>(key: &str, value: &Value) -> Result<Record<T>, EdgeError> {
    let kind = T::KIND;
    let refused = |why: &str| EdgeError::new(ErrorKind::Internal, format!("failed to read the record of {kind} `{key}`: {why}"));
    let Format { format } = stored::of_value(value, || format!("the record of {kind} `{key}`"))?;
    if format > FORMAT {
        return Err(refused(&format!("it has format {format}, and this release knows {FORMAT}; use a newer release")));
    }
    let record: Record<T> = stored::of_value(value, || format!("the record of {kind} `{key}`"))?;
    let id: &str = record.wanted.id().borrow();
    if id != key {
        return Err(refused(&format!("it is of another {kind}")));
    }
    record.wanted.validate()?;
    Ok(record)
}

/// The version of a document, and the records in it. One that cannot be read, as of a newer release, is left as it is.
pub(crate) fn read<T: Allotted>(document: &Document) -> Result<(u64, Records<T>), EdgeError> {
    let Some(state) = document.view()? else { return Ok((0, Records::<T>::new())) };
    let mut records = Records::<T>::new();
    for (key, value) in &state.data.0 {
        match of_value::<T>(key, value) {
            Ok(record) => drop(records.insert(record.wanted.id().clone(), Arc::new(record))),
            Err(error) => tracing::warn!(id = key, error = error.chain(), "a {} could not be read, and is passed over", T::KIND),
        }
    }
    Ok((state.version, records))
}

#[cfg(test)]
mod tests {
    use edgeward_model::{CatchUp, FunctionId, Schedule, ScheduleId, Trigger, TriggerId, python_json};

    use super::*;

    #[test]
    fn a_record_comes_back_from_its_value_as_it_was() {
        let (id, function) = (ScheduleId::new("s").expect("valid"), FunctionId::new("f").expect("valid"));
        let mut schedule = Schedule::new(id, function.clone(), "*/10 2 * * MON-FRI".parse().expect("valid"));
        schedule.zone = "Europe/Berlin".parse().expect("valid");
        schedule.target = "one,site=berlin".parse().expect("valid");
        (schedule.payload, schedule.timeout_seconds) = (r#"{"é": 1}"#.to_owned(), Some(0.1 + 0.2));
        (schedule.catch_up, schedule.jitter_seconds) = (CatchUp::All { runs_max: 7 }, 3);
        schedule.starts_at = Some("2026-01-01T00:00:00.5Z".parse().expect("valid"));
        comes_back(&Record { generation: u64::MAX, since: 7, wanted: schedule });

        let mut trigger = Trigger::new(TriggerId::new("s").expect("valid"), function, vec!["site/+/temp".parse().expect("valid")]);
        (trigger.target, trigger.retry.attempts) = ("site=berlin".parse().expect("valid"), 9);
        comes_back(&Record { generation: 3, since: 1, wanted: trigger });
    }

    fn comes_back<T: Allotted + PartialEq + std::fmt::Debug>(record: &Record<T>) {
        assert_eq!(of_value::<T>("s", &to_value(record).expect("a value")).expect("a record"), *record);
        assert!(of_value::<T>("t", &to_value(record).expect("a value")).is_err());
    }

    #[test]
    fn a_newer_form_is_refused_and_a_field_that_is_not_known_is_passed_over() {
        let read = |format: u32| {
            let json = format!(r#"{{"format": {format}, "generation": 1, "id": "s", "function": "f", "when": "every 1s", "new": 1}}"#);
            of_value::<Schedule>("s", &python_json::read(&json).expect("JSON"))
        };
        assert_eq!(read(1).expect("a record").wanted.attempts, 1);
        assert!(read(2).expect_err("newer").to_string().contains("use a newer release"));
    }
}
