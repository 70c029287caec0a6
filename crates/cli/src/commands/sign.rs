//! `edgeward sign`: signatures of artifacts, made and checked on the machine that has the key. No node is asked.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use edgeward::{
    Digest, EdgeError, ErrorKind, FunctionId, digest_of,
    limits::{ARTIFACT_BYTES_MAX, SIGNING_FILE_BYTES_MAX},
    signing::{SignedArtifact, SigningKey},
};
use jiff::Timestamp;

use crate::{
    exit::Hinted,
    input::Input,
    terminal::{self, Palette, Table},
    trusted_keys,
};

const EXAMPLES: &str = "\
Examples:
  edgeward sign keygen --out release.key > release.pub
  edgeward sign hello.wasm --key release.key --id hello          # writes hello.wasm.sig
  edgeward sign verify hello.wasm --trusted-key release.pub
  edgeward deploy hello.wasm --id hello                          # takes hello.wasm.sig with it

The private key signs for whoever has it: keep it off the nodes. A signature is of one function, one
artifact and one counter, which grows with each release so that an old image is not run again.";

/// Sign an artifact for nodes that run signed artifacts only
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    signing: Option<Signing>,
}

#[derive(Debug, clap::Args)]
struct Signing {
    /// The artifact; its signature is written beside it, as ARTIFACT.sig
    artifact: PathBuf,
    /// File of the private key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The function that the artifact may be
    #[arg(long)]
    id: FunctionId,
    /// Number of the release, greater than that of the one before [default: the seconds since 1970]
    #[arg(long, value_name = "N")]
    counter: Option<u64>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a private key, and print its public key
    Keygen {
        /// File for the private key, which must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Check the signature beside an artifact
    Verify {
        /// The artifact
        artifact: PathBuf,
        /// File of the signature [default: ARTIFACT.sig]
        #[arg(long, value_name = "FILE")]
        signature: Option<PathBuf>,
        /// The function that it must be of
        #[arg(long)]
        id: Option<FunctionId>,
        /// A key of which it must be, or a file with one on each line; may be given again [default: any]
        #[arg(long = "trusted-key", value_name = "KEY|FILE")]
        trusted_keys: Vec<String>,
    },
}

/// Runs the command.
pub(crate) fn run(args: Args, json: bool) -> anyhow::Result<()> {
    match (args.action, args.signing) {
        (Some(Action::Keygen { out }), _) => keygen(&out, json),
        (Some(Action::Verify { artifact, signature, id, trusted_keys }), _) => {
            let signature = signature.unwrap_or_else(|| beside(&artifact));
            let signed = read(&signature)?;
            signed.signature_of(id.as_ref().unwrap_or(&signed.function), &digest_of_file(&artifact)?)?;
            let trusted = trusted_keys::read(&trusted_keys)?;
            if !trusted.is_empty() && !trusted.contains(&signed.signature.key) {
                let why = format!("the signature is right and of `{}`, which is none of the trusted keys", signed.signature.key);
                return Err(EdgeError::new(ErrorKind::RefusedArtifact, why).into());
            }
            tell(&signed, json)
        }
        (None, Some(signing)) => sign(signing, json),
        (None, None) => Err(EdgeError::invalid("say what to sign: `edgeward sign ARTIFACT --key FILE --id ID`").into()),
    }
}

fn keygen(out: &Path, json: bool) -> anyhow::Result<()> {
    let key = SigningKey::generate()?;
    let failed = || format!("failed to write the private key `{}`", out.display());
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(out);
    let mut file = match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let why = format!("`{}` exists already", out.display());
            return Err(Hinted::new(EdgeError::new(ErrorKind::Conflict, why), "a lost key cannot be made again: give another name").into());
        }
        made => made.with_context(failed)?,
    };
    file.write_all(key.to_pem()?.as_bytes()).and_then(|()| file.sync_all()).with_context(failed)?;
    let public = key.public_key();
    if json {
        terminal::write_json(serde_json::json!({ "public_key": public, "private_key_file": out }).to_string().as_bytes())?;
    } else {
        terminal::write(format!("{public}\n"))?;
        terminal::note("this is the public key, for `edgeward trust add` on the hub or `--trusted-key` of a node");
    }
    Ok(())
}

fn sign(Signing { artifact, key, id, counter }: Signing, json: bool) -> anyhow::Result<()> {
    let key = private_key(&key)?;
    let counter = match counter {
        Some(counter) => counter,
        None => u64::try_from(Timestamp::now().as_second()).context("the clock of this machine is before 1970; give --counter")?,
    };
    let digest = digest_of_file(&artifact)?;
    let signed = SignedArtifact { signature: key.sign(&id, &digest, counter), function: id, artifact: digest };
    let path = beside(&artifact);
    fs::write(&path, signed.to_json()).with_context(|| format!("failed to write the signature `{}`", path.display()))?;
    tell(&signed, json)
}

fn private_key(path: &Path) -> anyhow::Result<SigningKey> {
    let failed = || format!("failed to read the private key `{}`", path.display());
    let mode = fs::metadata(path).with_context(failed)?.permissions().mode();
    if mode & 0o007 != 0 {
        let why = format!("everybody on this machine can use the private key `{}`", path.display());
        return Err(Hinted::new(EdgeError::invalid(why), "`chmod 600` it; if others could read it, make a new key").into());
    }
    let pem = Input::File(path.to_owned()).read(SIGNING_FILE_BYTES_MAX)?;
    SigningKey::of_pem(&String::from_utf8_lossy(&pem)).with_context(failed)
}

fn tell(signed: &SignedArtifact, json: bool) -> anyhow::Result<()> {
    let SignedArtifact { function, artifact, signature } = signed;
    if json {
        terminal::write_json(signed.to_json().as_bytes())?;
        return Ok(());
    }
    let mut table = Table::of_fields();
    table.field("function", function.as_str());
    table.field("artifact", artifact.to_string());
    table.field("counter", signature.counter.to_string());
    table.field("signed by", signature.key.to_string());
    terminal::write(table.render(Palette::stdout()))?;
    Ok(())
}

/// Where the signature of an artifact lies unless another place is given.
pub(super) fn beside(artifact: &Path) -> PathBuf {
    let mut name = artifact.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// Reads the file of a signature.
pub(super) fn read(path: &Path) -> anyhow::Result<SignedArtifact> {
    let failed = || format!("failed to read the signature `{}`", path.display());
    SignedArtifact::of_json(&Input::File(path.to_owned()).read(SIGNING_FILE_BYTES_MAX)?).with_context(failed)
}

fn digest_of_file(artifact: &Path) -> anyhow::Result<Digest> {
    Ok(digest_of(&Input::File(artifact.to_owned()).read(ARTIFACT_BYTES_MAX)?))
}
