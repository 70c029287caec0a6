//! The record of a schedule, and its form as a value of a document.

use edgeward_model::{EdgeError, ErrorKind, Schedule, Value};
use serde::{Deserialize, Serialize};

use crate::stored;

/// Version of a record's form. A newer one is refused.
const FORMAT: u32 = 1;

/// A schedule that should run, and the generation of that wish.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleRecord {
    /// Grows with every change of a schedule on this node, and is never used twice.
    pub generation: u64,
    /// The generation with which a schedule of this id came to be: one that was removed and made anew is another. Not for people.
    #[serde(default, skip_serializing)]
    pub since: u64,
    /// The schedule.
    #[serde(flatten)]
    pub schedule: Schedule,
}

#[derive(Serialize)]
struct Stored<'a> {
    format: u32,
    since: u64,
    #[serde(flatten)]
    record: &'a ScheduleRecord,
}

/// The part of a record that every release can read.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl ScheduleRecord {
    /// The record as a value.
    pub(crate) fn to_value(&self) -> Result<Value, EdgeError> {
        stored::to_value(&Stored { format: FORMAT, since: self.since, record: self })
    }

    /// Reads the value of this key.
    pub(crate) fn of_value(key: &str, value: &Value) -> Result<Self, EdgeError> {
        let refused = |why: &str| EdgeError::new(ErrorKind::Internal, format!("failed to read the record of schedule `{key}`: {why}"));
        let Format { format } = stored::of_value(value, || format!("the record of schedule `{key}`"))?;
        if format > FORMAT {
            return Err(refused(&format!("it has format {format}, and this release knows {FORMAT}; use a newer release")));
        }
        let record: Self = stored::of_value(value, || format!("the record of schedule `{key}`"))?;
        if record.schedule.id.as_str() != key {
            return Err(refused("it is of another schedule"));
        }
        record.schedule.validate()?;
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use edgeward_model::{CatchUp, FunctionId, ScheduleId, python_json};

    use super::*;

    #[test]
    fn a_record_comes_back_from_its_value_as_it_was() {
        let (id, function) = (ScheduleId::new("s").expect("valid"), FunctionId::new("f").expect("valid"));
        let mut schedule = Schedule::new(id, function, "*/10 2 * * MON-FRI".parse().expect("valid"));
        schedule.zone = "Europe/Berlin".parse().expect("valid");
        schedule.target = "one,site=berlin".parse().expect("valid");
        (schedule.payload, schedule.timeout_seconds) = (r#"{"é": 1}"#.to_owned(), Some(0.1 + 0.2));
        (schedule.catch_up, schedule.jitter_seconds) = (CatchUp::All { runs_max: 7 }, 3);
        schedule.starts_at = Some("2026-01-01T00:00:00.5Z".parse().expect("valid"));
        let record = ScheduleRecord { generation: u64::MAX, since: 7, schedule };
        assert_eq!(ScheduleRecord::of_value("s", &record.to_value().expect("a value")).expect("a record"), record);
        assert!(ScheduleRecord::of_value("t", &record.to_value().expect("a value")).is_err());
    }

    #[test]
    fn a_newer_form_is_refused_and_a_field_that_is_not_known_is_passed_over() {
        let read = |format: u32| {
            let json = format!(r#"{{"format": {format}, "generation": 1, "id": "s", "function": "f", "when": "every 1s", "new": 1}}"#);
            ScheduleRecord::of_value("s", &python_json::read(&json).expect("JSON"))
        };
        assert_eq!(read(1).expect("a record").schedule.attempts, 1);
        assert!(read(2).expect_err("newer").to_string().contains("use a newer release"));
    }
}
