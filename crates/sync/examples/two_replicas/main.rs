//! A hub and two replicas, each a process of its own with a folder of its own, over loopback TCP.
//!
//! ```sh
//! cargo run -p edgeward-sync --example two_replicas            # in a temporary folder, which is removed when all went well
//! cargo run -p edgeward-sync --example two_replicas -- FOLDER  # in a new folder, which stays
//! ```
//!
//! What a program has to bring for replication is here too: a way for frames (`send` and `receive`), who answers them ([`hub`]) and
//! who asks ([`exchange`]). It ends with an error unless all three show the same in the end.

mod process;

use std::{
    env, fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use edgeward_model::{DocumentName, EdgeError, NodeId, python_json};
use edgeward_sync::{
    Conflict, Document, Documents, Epoch, Hub, Precondition, ReplicaSession, Role, SessionState, Side, Store, wire::FRAME_BYTES_MAX,
};
use jiff::Timestamp;

use crate::process::{Process, obey};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            let folder = env::temp_dir().join(format!("edgeward-two-replicas-{}", std::process::id()));
            tell_story(&folder)?;
            Ok(fs::remove_dir_all(&folder)?)
        }
        [folder] => tell_story(Path::new(folder)),
        ["hub", folder] => hub(Path::new(folder)),
        ["replica", name, folder, hub] => replica(name, Path::new(folder), hub.parse()?),
        _ => Err("usage: two_replicas [FOLDER]".into()),
    }
}

fn tell_story(folder: &Path) -> Result<(), Failure> {
    fs::create_dir(folder)?;
    let place = |name: &str| folder.join(name).display().to_string();
    let mut hub = Process::start(&["hub", &place("hub")])?;
    let address = hub.answer()?;
    let start = |name: &str| Process::start(&["replica", name, &place(name), &address]);
    let (mut north, mut south) = (start("north")?, start("south")?);

    println!("Both replicas write while neither is connected.");
    north.obeys(&["set setpoint 4", "set door-north \"open\"", "count boxes 3"])?;
    south.obeys(&["set setpoint 6", "set door-south \"shut\"", "count boxes 4"])?;
    println!("  north  {}\n  south  {}", north.order("show")?, south.order("show")?);

    println!("Both connect. North asks again, as south brought news.");
    north.obeys(&["connect", "sync"])?;
    south.obeys(&["connect", "sync"])?;
    north.order("sync")?;
    converged(&mut hub, &mut north, &mut south)?;

    println!("South goes offline, and both write. South is killed and starts again: what it wrote is on its disk. It connects.");
    south.obeys(&["disconnect", "set door-south \"open\"", "count boxes 2"])?;
    north.obeys(&["set door-north \"shut\"", "count boxes 1", "sync"])?;
    drop(south);
    south = start("south")?;
    south.obeys(&["connect", "sync"])?;
    north.order("sync")?;
    let view = converged(&mut hub, &mut north, &mut south)?;

    // Counts add up: 3 + 4 + 2 + 1. Of the setpoints the later shows, and the other is kept as a conflict.
    let conflicts = north.order("conflicts")?;
    println!("Conflicts\n  {conflicts}");
    if view != r#"{"boxes": 10, "door-north": "shut", "door-south": "open", "setpoint": 6}"#
        || conflicts != "setpoint: 6 by south shows, 4 by north is kept"
        || south.order("conflicts")? != conflicts
    {
        return Err("what is shown is not what was written".into());
    }
    println!("converged");
    Ok(())
}

/// What all three show, which must be the same.
fn converged(hub: &mut Process, north: &mut Process, south: &mut Process) -> Result<String, Failure> {
    let (hub, north, south) = (hub.order("show")?, north.order("show")?, south.order("show")?);
    println!("  hub    {hub}\n  north  {north}\n  south  {south}");
    if hub == north && hub == south { Ok(hub) } else { Err("the replicas did not converge".into()) }
}

/// A hub: it answers frames, each on its own, and keeps nothing of a connection.
fn hub(folder: &Path) -> Result<(), Failure> {
    let store = Arc::new(Store::open_as(folder, NodeId::new("hub")?, Epoch::draw()?, Role::Hub)?);
    let document = document(Arc::clone(&store))?;
    let hub = Arc::new(Hub::new(store)?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let hub = Arc::clone(&hub);
            // It ends with its connection; a replica that is not answered asks again.
            thread::spawn(move || serve(&hub, stream?));
        }
    });
    obey(|_| show(&document))
}

fn serve(hub: &Hub, mut stream: TcpStream) -> Result<(), Failure> {
    loop {
        let answer = hub.answer(&receive(&mut stream)?, now_millis())?;
        send(&mut stream, &answer)?;
    }
}

/// A replica: it writes to its own disk at any time, and exchanges what it wrote when it is told to.
fn replica(name: &str, folder: &Path, hub: SocketAddr) -> Result<(), Failure> {
    let store = Arc::new(Store::open(folder, NodeId::new(name)?, Epoch::draw()?)?);
    let document = document(Arc::clone(&store))?;
    let mut session = ReplicaSession::new(store);
    let mut connection = None;
    obey(|order| {
        match order.splitn(3, ' ').collect::<Vec<_>>()[..] {
            ["set", key, value] => {
                let (key, value) = (key.to_owned(), python_json::read(value)?);
                document.edit(Precondition::None, move |draft| draft.set(&key, &value))?;
            }
            ["count", key, by] => {
                let (key, by) = (key.to_owned(), by.parse()?);
                document.edit(Precondition::None, move |draft| draft.increment(&key, by))?;
            }
            ["connect"] => {
                let stream = TcpStream::connect(hub)?;
                stream.set_read_timeout(Some(Duration::from_secs(10)))?;
                session.reconnect();
                connection = Some(stream);
            }
            ["disconnect"] => connection = None,
            ["sync"] => exchange(&mut session, connection.as_mut().ok_or("not connected")?)?,
            ["conflicts"] => return conflicts(&document),
            ["show"] => return show(&document),
            _ => return Err(format!("no such order: {order}").into()),
        }
        Ok("done".to_owned())
    })
}

/// Sends what the hub does not have, and fetches what this replica does not have.
fn exchange(session: &mut ReplicaSession, connection: &mut TcpStream) -> Result<(), Failure> {
    session.poke();
    while let Some(frame) = session.next_frame()? {
        send(connection, &frame)?;
        session.receive(&receive(connection)?, now_millis())?;
    }
    if session.state() == SessionState::Synced { Ok(()) } else { Err(format!("it came to rest as {:?}", session.state()).into()) }
}

/// A frame goes as its length, four bytes, the highest first, and itself.
fn send(stream: &mut TcpStream, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), frame].concat())
}

fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    // Before anything is allocated for it.
    let length = usize::try_from(u32::from_be_bytes(length)).ok().filter(|length| *length <= FRAME_BYTES_MAX);
    let mut frame = vec![0; length.ok_or(io::ErrorKind::InvalidData)?];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

fn document(store: Arc<Store>) -> Result<Document, EdgeError> {
    Ok(Documents::new(store).document(DocumentName::new("cellar")?))
}

fn show(document: &Document) -> Result<String, Failure> {
    Ok(python_json::write(&document.view()?.map(|state| state.data).unwrap_or_default().into())?)
}

fn conflicts(document: &Document) -> Result<String, Failure> {
    // A side without a value is a delete, or a value too large for the list.
    let write = |side: Side| side.value.map_or(Ok("nothing".into()), |value| python_json::write(&value)).map(|value| (value, side.node));
    let listed = document.conflicts()?.into_iter().map(|Conflict { key, winner, loser, .. }| {
        let ((shows, by), (kept, of)) = (write(winner.ok_or("it lost to nothing")?)?, write(loser)?);
        Ok(format!("{key}: {shows} by {by} shows, {kept} by {of} is kept"))
    });
    listed.collect::<Result<Vec<_>, Failure>>().map(|listed| listed.join("; "))
}

fn now_millis() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}
