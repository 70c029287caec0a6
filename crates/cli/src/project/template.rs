//! What a new project is made of: a folder under `templates` for each language, and the interfaces that guests of some languages need.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use edgeward::{EdgeError, ErrorKind, FunctionId};

use crate::language::Language;

/// Stands for the id in a template.
const ID: &str = "{{id}}";
/// Stands for the id as a key of TOML.
const KEY: &str = "{{key}}";

/// A file of a template: its path in the project, and its text.
type Template = (&'static str, &'static str);

/// The world that a function in Python or JavaScript exports. Rust's bindings carry it, and a command in C has none.
const WIT: Template = ("wit/http-function.wit", include_str!("../../../../functions/wit/http-function.wit"));

macro_rules! template {
    ($folder:literal: $($path:literal),+) => {
        [
            // Under another name, so that it ignores nothing where it lies.
            (".gitignore", include_str!(concat!("../../templates/", $folder, "/gitignore"))),
            $(($path, include_str!(concat!("../../templates/", $folder, "/", $path)))),+
        ]
    };
}

fn templates(language: Language) -> Vec<Template> {
    match language {
        Language::Rust => template!("rust": "edgeward.toml", "README.md", "Cargo.toml", "src/lib.rs").into(),
        Language::C => template!("c": "edgeward.toml", "README.md", "build.sh", "function.c").into(),
        Language::Python => [&template!("python": "edgeward.toml", "README.md", "app.py")[..], &[WIT]].concat(),
        Language::Js => [&template!("js": "edgeward.toml", "README.md", "package.json", "function.js")[..], &[WIT]].concat(),
    }
}

/// Makes a project in `folder`, which must be empty or not there, and gives the paths of its files in it. Nothing is overwritten.
pub(crate) fn create(folder: &Path, id: &FunctionId, language: Language) -> Result<Vec<&'static str>, EdgeError> {
    let failed = |path: &Path, error: io::Error| {
        EdgeError::new(ErrorKind::Internal, format!("failed to make `{}`", path.display())).with_source(error)
    };
    fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    if fs::read_dir(folder).map_err(|error| failed(folder, error))?.next().is_some() {
        let message = format!("the folder `{}` is not empty; name another one by `--path`", folder.display());
        return Err(EdgeError::new(ErrorKind::Conflict, message));
    }
    // A dot in a key would make it two.
    let key = if id.as_str().contains('.') { format!("\"{id}\"") } else { id.to_string() };
    let mut paths = Vec::new();
    for (path, text) in templates(language) {
        let text = text.replace(ID, id.as_str()).replace(KEY, &key);
        let file = folder.join(path);
        let parent = file.parent().expect("it lies in the folder");
        fs::create_dir_all(parent)
            .and_then(|()| File::create_new(&file))
            .and_then(|mut created| created.write_all(text.as_bytes()))
            .map_err(|error| failed(&file, error))?;
        paths.push(path);
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::project::{FILE_NAME, Project};

    /// Every project, by its language.
    fn projects(id: &FunctionId) -> Vec<(Language, tempfile::TempDir)> {
        let project = |language| {
            let folder = tempfile::tempdir().expect("a folder");
            create(folder.path(), id, language).expect("made");
            (language, folder)
        };
        Language::ALL.map(project).into()
    }

    #[test]
    fn each_language_has_a_project_whose_file_is_valid_for_any_id() {
        for id in ["hello", "a.b-c_d", "1"] {
            let id = FunctionId::new(id).expect("valid");
            for (language, folder) in projects(&id) {
                let project = Project::at(folder.path()).expect("valid").expect("a project");
                assert_eq!(project.id, id, "{language:?}");
                let commands = project.build.as_ref().map(|build| build.commands.each().concat()).expect("it is built");
                let readme = fs::read_to_string(folder.path().join("README.md")).expect("there");
                assert!(readme.contains(&format!("edgeward invoke {id} ")) && !readme.contains("{{"), "{readme}");
                assert!(language == Language::C || Language::of_command(&commands) == Some(language), "{commands}");
            }
        }
    }

    #[test]
    fn what_a_build_makes_is_ignored_by_git() {
        for (language, folder) in projects(&FunctionId::new("hello").expect("valid")) {
            let ignored = fs::read_to_string(folder.path().join(".gitignore")).expect("there");
            let wanted = if language == Language::Rust { "/target" } else { "*.wasm" };
            assert!(ignored.lines().any(|line| line == wanted), "{language:?}: {ignored}");
        }
    }

    #[test]
    fn a_folder_with_anything_in_it_is_left_as_it_is() {
        let id = FunctionId::new("hello").expect("valid");
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(FILE_NAME), "mine").expect("written");
        let error = create(folder.path(), &id, Language::C).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let there: BTreeMap<_, _> = fs::read_dir(folder.path())
            .expect("there")
            .map(|entry| entry.expect("there").path())
            .map(|path| (path.file_name().expect("named").to_owned(), fs::read_to_string(&path).expect("text")))
            .collect();
        assert_eq!(there, BTreeMap::from([(FILE_NAME.into(), "mine".to_owned())]));
    }
}
