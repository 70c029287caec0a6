//! `edgeward demo documents`: two replicas write while they are apart, and become the same when their hub is back.
//!
//! The whole story happens first, on stores in a temporary folder; what is shown of it, as text or JSON, is what the stores said.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use anyhow::Context;
use edgeward::{
    Conflict, Document, DocumentName, Documents, Draft, EdgeError, Epoch, Hub, NodeId, Object, ReplicaSession, Resolution, Role,
    SessionState, Side, Store, Value, document::Precondition, python_json,
};
use jiff::Timestamp;

use super::temp_folder::TempFolder;
use crate::{
    signals::StopSignals,
    terminal::{self, Cell, Palette, Style, Table, heading},
};

const EXAMPLES: &str = "\
Examples:
  edgeward demo documents
  edgeward demo documents --json | jq .conflict";

/// Documents of two replicas, which diverge while apart and converge
///
/// Both write to the same document while their hub is gone: apart, to the same key, and to a counter. Then the hub is back.
/// It all happens in this process, on stores in a temporary folder, which is removed. It needs no node and no network.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

const DOCUMENT: &str = "cellar";
/// What both replicas change, and what both count.
const SETPOINT: &str = "setpoint";
const BOXES: &str = "boxes";
/// What the hub sets before they are apart, and what north and south make of it.
const SETPOINTS: [i64; 3] = [5, 4, 6];
/// What north and south count.
const COUNTS: [i64; 2] = [3, 4];

/// The document as stores showed it.
struct Shown<'a> {
    name: &'a str,
    data: Object,
}

/// What happened.
struct Outcome {
    apart: [Shown<'static>; 2],
    together: [Shown<'static>; 3],
    conflict: Conflict,
    resolved: [Shown<'static>; 3],
    conflicts_left: usize,
}

/// Runs the command.
pub(super) async fn run(json: bool) -> anyhow::Result<()> {
    let mut signals = StopSignals::catch()?;
    let folder = TempFolder::create()?;
    let path = folder.0.clone();
    let mut story = tokio::task::spawn_blocking(move || happen(&path));
    let outcome = tokio::select! {
        outcome = &mut story => outcome??,
        () = signals.next() => {
            // It is short, and the folder can only go when nobody writes there any more.
            story.await??;
            anyhow::bail!("stopped before its end");
        }
    };
    if json {
        terminal::write_json(python_json::write(&outcome.to_json())?.as_bytes())?;
    } else {
        terminal::write(outcome.to_text(Palette::stdout())?)?;
    }
    Ok(())
}

/// One store and its session with the hub.
struct Replica {
    document: Document,
    session: ReplicaSession,
}

impl Replica {
    fn open(folder: &Path, name: &str) -> Result<Self, EdgeError> {
        let (store, document) = open(folder, name, Role::Replica)?;
        Ok(Self { document, session: ReplicaSession::new(store) })
    }

    /// Sends what the hub does not have, and fetches what this replica does not have.
    fn exchange(&mut self, hub: &Hub) -> anyhow::Result<()> {
        let now_millis = || u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
        self.session.poke();
        while let Some(frame) = self.session.next_frame()? {
            let answer = hub.answer(&frame, now_millis())?;
            self.session.receive(&answer, now_millis())?;
        }
        let state = self.session.state();
        anyhow::ensure!(state == SessionState::Synced, "the session came to rest as {state:?}");
        Ok(())
    }
}

fn open(folder: &Path, name: &str, role: Role) -> Result<(Arc<Store>, Document), EdgeError> {
    let store = Arc::new(Store::open_as(&folder.join(name), NodeId::new(name)?, Epoch::draw()?, role)?);
    let document = Documents::new(Arc::clone(&store)).document(DocumentName::new(DOCUMENT)?);
    Ok((store, document))
}

fn open_hub(folder: &Path) -> Result<(Hub, Document), EdgeError> {
    let (store, document) = open(folder, "hub", Role::Hub)?;
    Ok((Hub::new(store)?, document))
}

fn happen(folder: &Path) -> anyhow::Result<Outcome> {
    let (hub, hub_document) = open_hub(folder)?;
    let (mut north, mut south) = (Replica::open(folder, "north")?, Replica::open(folder, "south")?);

    edit(&hub_document, |draft| draft.set(SETPOINT, &SETPOINTS[0].into()))?;
    north.exchange(&hub)?;
    south.exchange(&hub)?;
    drop((hub, hub_document));

    // Each edit is on the disk of its replica when it returns.
    edit(&north.document, |draft| draft.set(SETPOINT, &SETPOINTS[1].into()))?;
    edit(&north.document, |draft| draft.set("door-north", &"open".into()))?;
    edit(&north.document, |draft| draft.increment(BOXES, COUNTS[0]).map(drop))?;
    edit(&south.document, |draft| draft.set(SETPOINT, &SETPOINTS[2].into()))?;
    edit(&south.document, |draft| draft.set("door-south", &"shut".into()))?;
    edit(&south.document, |draft| draft.increment(BOXES, COUNTS[1]).map(drop))?;
    let apart = [shown("north", &north.document)?, shown("south", &south.document)?];

    let (hub, hub_document) = open_hub(folder)?;
    let all = |north: &Replica, south: &Replica| -> anyhow::Result<[Shown<'static>; 3]> {
        let all = [shown("north", &north.document)?, shown("south", &south.document)?, shown("hub", &hub_document)?];
        anyhow::ensure!(all.iter().all(|one| one.data == all[0].data), "the replicas did not converge");
        Ok(all)
    };
    north.exchange(&hub)?;
    south.exchange(&hub)?;
    north.exchange(&hub)?;
    let together = all(&north, &south)?;
    let conflicts = south.document.conflicts()?;
    let [conflict] =
        <[Conflict; 1]>::try_from(conflicts).map_err(|found| anyhow::anyhow!("{} conflicts are listed, not 1", found.len()))?;

    // Any replica may resolve it, also while it is apart.
    south.document.resolve(&conflict.id, Resolution::Take)?;
    south.exchange(&hub)?;
    north.exchange(&hub)?;
    let resolved = all(&north, &south)?;
    let conflicts_left = [&north.document, &south.document, &hub_document]
        .into_iter()
        .try_fold(0, |count, document| Ok::<_, EdgeError>(count + document.conflicts()?.len()))?;
    Ok(Outcome { apart, together, conflict, resolved, conflicts_left })
}

fn edit(document: &Document, edit: impl FnOnce(&mut Draft<'_, '_>) -> Result<(), EdgeError> + Send + 'static) -> Result<(), EdgeError> {
    document.edit(Precondition::None, edit).map(drop)
}

fn shown<'a>(name: &'a str, document: &Document) -> anyhow::Result<Shown<'a>> {
    let state = document.view()?.with_context(|| format!("{name} has no document `{DOCUMENT}`"))?;
    Ok(Shown { name, data: state.data })
}

impl Outcome {
    fn to_text(&self, palette: Palette) -> anyhow::Result<String> {
        let counted = self.together[0].data.0.get(BOXES).unwrap_or(&Value::Null);
        let counted = format!("{} + {} = {}", COUNTS[0], COUNTS[1], python_json::write(counted)?);
        let parts = [
            heading("Apart", &format!("the hub is gone; north and south change the document `{DOCUMENT}`, each on its own disk"), palette),
            side_by_side(&self.apart, palette)?,
            heading("Together", "the hub is back; each gives what it wrote and takes what it missed, and all become the same", palette),
            side_by_side(&self.together, palette)?,
            format!("  `{BOXES}` counts, so nothing is lost: {}\n", palette.paint(Style::Good, &counted)),
            heading("Conflict", "two values were written without knowing of each other; one shows, the other is kept", palette),
            self.conflict_table()?.render(palette),
            heading("Resolve", "someone at south takes the value that lost; so could north or the hub, or choose another", palette),
            side_by_side(&self.resolved, palette)?,
            format!("  conflicts that are left: {}\n", self.conflicts_left),
            format!("\nNow your own: `edgeward up`, then `edgeward state put {DOCUMENT} {SETPOINT} --value 5`.\n"),
        ];
        Ok(parts.concat())
    }

    fn conflict_table(&self) -> Result<Table, EdgeError> {
        let Conflict { key, why, winner, loser, .. } = &self.conflict;
        let mut table = Table::new(&["key", "why", "shows", "by", "kept", "by"]);
        let [shows, by] = winner.as_ref().map_or(Ok([absent(), absent()]), |winner| side_cells(winner, Style::Good))?;
        let [kept, of] = side_cells(loser, Style::Warning)?;
        table.row(vec![key.into(), why.as_str().into(), shows, by, kept, of]);
        Ok(table)
    }

    fn to_json(&self) -> Value {
        let whole = |all: &[Shown<'_>]| all.iter().map(|one| (one.name, one.data.clone())).collect::<Object>();
        let side =
            |side: &Side| Object::from_iter([("node", Value::from(side.node.as_str())), ("value", side.value.clone().unwrap_or_default())]);
        let counter = Object::from_iter([
            ("key", Value::from(BOXES)),
            ("north", COUNTS[0].into()),
            ("south", COUNTS[1].into()),
            ("sum", self.together[0].data.0.get(BOXES).cloned().unwrap_or_default()),
        ]);
        let conflict = Object::from_iter([
            ("key", Value::from(self.conflict.key.as_str())),
            ("why", self.conflict.why.as_str().into()),
            ("winner", self.conflict.winner.as_ref().map_or(Value::Null, |winner| side(winner).into())),
            ("loser", side(&self.conflict.loser).into()),
        ]);
        Value::from(Object::from_iter([
            ("document", Value::from(DOCUMENT)),
            ("apart", whole(&self.apart).into()),
            ("together", whole(&self.together).into()),
            ("counter", counter.into()),
            ("conflict", conflict.into()),
            ("resolved", whole(&self.resolved).into()),
            ("conflicts_left", Value::from(self.conflicts_left as u64)),
        ]))
    }
}

/// A row for each key and a column for each store: green where all have the same, yellow where they differ.
fn side_by_side(all: &[Shown<'_>], palette: Palette) -> Result<String, EdgeError> {
    let headings: Vec<&str> = std::iter::once("key").chain(all.iter().map(|one| one.name)).collect();
    let mut table = Table::new(&headings);
    let keys: BTreeSet<&String> = all.iter().flat_map(|one| one.data.0.keys()).collect();
    for key in keys {
        let values: Vec<Option<&Value>> = all.iter().map(|one| one.data.0.get(key)).collect();
        let style = if values.iter().all(|value| *value == values[0]) { Style::Good } else { Style::Warning };
        let mut row = vec![Cell::from(key)];
        for value in values {
            row.push(value.map_or_else(|| Ok(absent()), |value| python_json::write(value).map(|text| Cell::new(style, &text)))?);
        }
        table.row(row);
    }
    Ok(table.render(palette))
}

fn side_cells(side: &Side, style: Style) -> Result<[Cell; 2], EdgeError> {
    let value = side.value.as_ref().map_or_else(|| Ok(absent()), |value| python_json::write(value).map(|text| Cell::new(style, &text)));
    Ok([value?, Cell::from(&side.node)])
}

fn absent() -> Cell {
    Cell::new(Style::Faint, "-")
}
