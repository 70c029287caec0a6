//! The languages that functions are written in, and what builds them.

/// A language of functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Language {
    Rust,
    C,
    Python,
    Js,
}

impl Language {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Rust, Self::C, Self::Python, Self::Js];

    /// What a person does to be able to build functions in it.
    pub(crate) fn hint(self) -> &'static str {
        match self {
            Self::Rust => "to build functions in Rust: `rustup target add wasm32-wasip2`, or see functions/README.md for Debian",
            Self::C => "to build functions in C: install wasi-sdk, or clang, lld and wasi-libc",
            Self::Python => "to build functions in Python: `pip install componentize-py`",
            Self::Js => {
                "to build functions in JavaScript: install Node.js with npm, then `npm install -g @bytecodealliance/componentize-js`"
            }
        }
    }

    /// The language whose tools a command line names.
    pub(crate) fn of_command(command: &str) -> Option<Self> {
        let is_named = |tools: &[&str]| command.split(|c: char| !c.is_alphanumeric() && c != '-').any(|word| tools.contains(&word));
        Self::ALL.into_iter().find(|language| is_named(language.tools()))
    }

    fn tools(self) -> &'static [&'static str] {
        match self {
            Self::Rust => &["cargo", "rustc"],
            Self::C => &["clang", "clang-22"],
            Self::Python => &["componentize-py"],
            Self::Js => &["componentize-js", "npm", "npx", "jco"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_tells_its_language_by_the_tool_that_it_starts() {
        for (command, language) in [
            ("cargo build --release", Some(Language::Rust)),
            ("cd x && $WASI_SDK_PATH/bin/clang --target=wasm32-wasip1 a.c", Some(Language::C)),
            ("componentize-py -d wit componentize app", Some(Language::Python)),
            ("npm run build", Some(Language::Js)),
            ("make", None),
            ("./mycargo", None),
        ] {
            assert_eq!(Language::of_command(command), language, "{command}");
        }
    }
}
