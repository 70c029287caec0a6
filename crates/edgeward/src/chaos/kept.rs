//! Reports of experiments, in a document of the hub: the last of them, each with as many points as there is room for.

use edgeward_cluster::chaos::Report;
use edgeward_model::{
    DocumentName, EdgeError, ErrorKind, ExperimentName,
    limits::{EXPERIMENTS_KEPT_MAX, REPORT_BYTES_MAX},
};
use edgeward_sync::{Document, Documents, Precondition};

use crate::stored;

const DOCUMENT: &str = "edgeward.hub.experiments";

/// The reports that are kept. Reading and writing wait for the disk.
#[derive(Clone, Debug)]
pub(super) struct Reports(Document);

impl Reports {
    pub(super) fn new(documents: &Documents) -> Result<Self, EdgeError> {
        Ok(Self(documents.document(DocumentName::new(DOCUMENT)?)))
    }

    /// The id of the next run of an experiment.
    pub(super) fn next_id(&self, name: &ExperimentName) -> Result<String, EdgeError> {
        let prefix = format!("{name}:");
        let numbers = self.0.keys(None, usize::MAX)?.into_iter().filter_map(|id| id.strip_prefix(&prefix)?.parse::<u64>().ok());
        Ok(format!("{prefix}{}", numbers.max().unwrap_or(0) + 1))
    }

    /// Keeps a report; the oldest gives way when there is no room.
    pub(super) fn put(&self, id: &str, mut report: Report) -> Result<(), EdgeError> {
        while stored::bytes_of(&report)? > REPORT_BYTES_MAX && report.points.len() > 1 {
            report.halve_points();
        }
        let (id, value) = (id.to_owned(), stored::to_value(&report)?);
        let mut others: Vec<_> =
            self.all()?.into_iter().filter(|(known, _)| *known != id).map(|(id, report)| (report.started_at, id)).collect();
        others.sort();
        let surplus = (others.len() + 1).saturating_sub(EXPERIMENTS_KEPT_MAX);
        let edit = self.0.edit(Precondition::None, move |draft| {
            others[..surplus].iter().try_for_each(|(_, oldest)| draft.remove(oldest))?;
            draft.set(&id, &value)
        });
        edit.map(drop)
    }

    /// A report.
    pub(super) fn get(&self, id: &str) -> Result<Report, EdgeError> {
        let value =
            self.0.get(id)?.ok_or_else(|| EdgeError::new(ErrorKind::NotFound, format!("experiment not found: `{}`", id.escape_debug())))?;
        stored::of_value(&value, || format!("the report of experiment `{id}`"))
    }

    /// Every report that can be read, with its id.
    pub(super) fn all(&self) -> Result<Vec<(String, Report)>, EdgeError> {
        let mut reports = Vec::new();
        for id in self.0.keys(None, usize::MAX)? {
            match self.get(&id) {
                Ok(report) => reports.push((id, report)),
                Err(error) => tracing::warn!(experiment = id, error = error.chain(), "a report could not be read"),
            }
        }
        Ok(reports)
    }
}
