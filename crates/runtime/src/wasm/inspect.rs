//! Tells what uploaded bytes are, before the engine sees them: a component of WASI 0.2, a core module of
//! preview 1 that becomes one, or nothing that runs here, and then why.

use bytes::Bytes;
use edgeward_model::{Digest, EdgeError, ErrorKind};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::{Encoding, Parser, Payload};

/// A component from uploaded bytes, or the reason why there is none.
pub(crate) fn componentise(digest: &Digest, bytes: &Bytes) -> Result<Bytes, EdgeError> {
    let refuse = |why: String| refused(digest, &why);
    if !bytes.starts_with(b"\0asm") {
        return Err(refuse("it is not WebAssembly: it does not begin with `\\0asm`".to_owned()));
    }
    let mut core = CoreModule::default();
    for payload in Parser::new(0).parse_all(bytes) {
        let malformed = |error: wasmparser::BinaryReaderError| refuse(format!("it is truncated or malformed: {error}"));
        match payload.map_err(malformed)? {
            Payload::Version { encoding: Encoding::Component, .. } => {
                wasi_0_3(bytes).map_err(malformed)?.map_or(Ok(()), |name| {
                    Err(refuse(format!("it uses WASI 0.3 (`{name}`), which this release does not run; build it for WASI 0.2")))
                })?;
                return Ok(bytes.clone());
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    core.imports.push(import.map_err(malformed)?.module.to_owned());
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    core.exports.push(export.map_err(malformed)?.name.to_owned());
                }
            }
            _ => {}
        }
    }
    core.componentise(bytes).map(Bytes::from).map_err(refuse)
}

/// The first import or export of WASI 0.3 at the top of a component.
fn wasi_0_3(bytes: &[u8]) -> Result<Option<String>, wasmparser::BinaryReaderError> {
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        let names: Vec<String> = match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                depth += 1;
                continue;
            }
            Payload::End(_) => {
                depth = depth.saturating_sub(1);
                continue;
            }
            Payload::ComponentImportSection(section) if depth == 0 => {
                section.into_iter().map(|import| import.map(|import| import.name.name.to_owned())).collect::<Result<_, _>>()?
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                section.into_iter().map(|export| export.map(|export| export.name.name.to_owned())).collect::<Result<_, _>>()?
            }
            _ => continue,
        };
        if let Some(name) = names.into_iter().find(|name| name.starts_with("wasi:") && name.contains("@0.3.")) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

#[derive(Default)]
struct CoreModule {
    imports: Vec<String>,
    exports: Vec<String>,
}

impl CoreModule {
    fn componentise(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let custom = has_component_types(bytes);
        if let Some(other) = self.imports.iter().find(|module| *module != WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME)
            && !custom
        {
            return Err(format!("it is a core module that imports from `{other}`; only WASI preview 1 imports can be adapted"));
        }
        let adapter = if self.exports.iter().any(|name| name == "_start") {
            WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER
        } else if custom {
            WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER
        } else {
            return Err("it is a core module without `_start`; build a command, or a component".to_owned());
        };
        let failed = |error: &dyn std::fmt::Display| format!("it is a core module that does not become a component: {error:#}");
        wit_component::ComponentEncoder::default()
            .module(bytes)
            .and_then(|encoder| encoder.validate(true).adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter))
            .and_then(|mut encoder| encoder.encode())
            .map_err(|error| failed(&error))
    }
}

/// Whether a bindings generator left the component's types in the module.
fn has_component_types(bytes: &[u8]) -> bool {
    Parser::new(0)
        .parse_all(bytes)
        .filter_map(Result::ok)
        .any(|payload| matches!(payload, Payload::CustomSection(section) if section.name().starts_with("component-type")))
}

pub(crate) fn refused(digest: &Digest, why: &str) -> EdgeError {
    EdgeError::new(ErrorKind::RefusedArtifact, format!("artifact `{digest}` is refused: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(bytes: impl Into<Bytes>) -> String {
        let error = componentise(&Digest::from_sha256([0; 32]), &bytes.into()).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::RefusedArtifact);
        error.to_string()
    }

    #[test]
    fn what_cannot_run_is_refused_with_the_reason() {
        assert!(refusal("#!/bin/sh").contains("not WebAssembly"));
        let module = wat::parse_str(r#"(module (import "env" "f" (func)))"#).expect("valid");
        assert!(refusal(module.clone()).contains("`env`"));
        assert!(refusal(module[..module.len() - 3].to_vec()).contains("truncated"));
        assert!(refusal(wat::parse_str("(module)").expect("valid")).contains("without `_start`"));
        let new = wat::parse_str(r#"(component (import "wasi:cli/environment@0.3.0" (instance)))"#).expect("valid");
        assert!(refusal(new).contains("WASI 0.3"));
    }

    #[test]
    fn a_command_of_preview_1_becomes_a_component() {
        let module = wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "_start")))"#).expect("valid");
        let component = componentise(&Digest::from_sha256([0; 32]), &module.into()).expect("adapted");
        assert!(matches!(Parser::new(0).parse_all(&component).next(), Some(Ok(Payload::Version { encoding: Encoding::Component, .. }))));
    }
}
