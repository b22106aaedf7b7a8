//! One template by itself: its folder as it lies, without the folder of definitions around it. Its owner is the folder above
//! where that stands in `templates`, else one that is made up: nothing that a template does depends on it.

use super::check;
use super::folder::{Files, Folder, TestFile, read_files};
use super::trial;
use crate::config::place::{Fault, Faults, FilePlace};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidegate_schemas::definition::{Definition, DefinitionKey, Template};
use tidegate_schemas::ids::is_id;
use tidegate_schemas::table::Table;

/// A template in which nothing is wrong but, perhaps, what its tests say.
#[derive(Debug)]
pub struct Single {
    dir: PathBuf,
    /// What stands before each of its files in `folder`.
    prefix: String,
    /// A folder of definitions with this template alone.
    pub folder: Folder,
}

impl Single {
    /// Reads and checks a template's folder; tests are not run.
    ///
    /// # Errors
    /// All that is wrong, with the places of the files as they lie.
    pub fn read(dir: &Path) -> Result<Self, Faults> {
        let files = read_files(dir)?;
        let fault = |detail: String, remedy: &str| {
            let place = FilePlace::file(&dir.join("template.toml").display().to_string());
            Faults(vec![Fault::new(place, detail, remedy)])
        };
        if !files.contains_key("template.toml") {
            return Err(fault("file is missing".into(), "name the folder of a template; tidegate template new DIR makes one"));
        }
        let whole = dir.canonicalize().map_err(|e| fault(e.to_string(), "name the folder of a template"))?;
        let name = |path: Option<&Path>| path.and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let mut above = whole.ancestors().skip(1);
        let (owner, templates) = (name(above.next()), name(above.next()));
        let owner = if templates == "templates" && is_id(&owner) { owner } else { "local".to_owned() };
        let mut single =
            Self { dir: dir.to_owned(), prefix: format!("templates/{owner}/{}/", name(Some(&whole))), folder: Folder::default() };
        let mut definitions: Files = files.into_iter().map(|(file, text)| (format!("{}{file}", single.prefix), text)).collect();
        definitions
            .insert("organizations.toml".into(), format!("[[organization]]\nid = \"{owner}\"\nkind = \"vendor\"\nname = \"{owner}\"\n"));
        single.folder = Folder::parse(&definitions).map_err(|Faults(faults)| single.placed(faults))?;
        let faults = check::unsound(&single.folder);
        if faults.is_empty() { Ok(single) } else { Err(single.placed(faults)) }
    }

    /// The template and its table.
    pub fn template(&self) -> Option<(&Template, &Table)> {
        let template = self.folder.definitions.iter().find_map(|d| if let Definition::Template(t) = d { Some(&**t) } else { None })?;
        let table = self.folder.definitions.iter().find_map(|d| if let Definition::Table(t) = d { Some(t) } else { None })?;
        Some((template, table))
    }

    /// A test that is not there yet.
    pub fn new_test(&self, name: &str, text: &str) -> Option<TestFile> {
        let (template, _) = self.template()?;
        let key = DefinitionKey { kind: "template".into(), owner: template.owner.to_string(), id: template.id.to_string() };
        Some(TestFile { template: key, file: format!("{}tests/{name}", self.prefix), text: text.to_owned() })
    }

    /// A test's path below the folder.
    pub fn file<'t>(&self, test: &'t TestFile) -> &'t str {
        test.file.strip_prefix(&self.prefix).unwrap_or(&test.file)
    }

    /// Where a test lies.
    pub fn path(&self, test: &TestFile) -> PathBuf {
        self.dir.join(self.file(test))
    }

    /// What is hardly meant, with the places of the files as they lie.
    pub fn advice(&self) -> Vec<String> {
        trial::advice(&self.folder).iter().map(|advice| advice.told(&self.dir, &self.prefix)).collect()
    }

    /// Faults with the places of the files as they lie.
    pub fn placed(&self, faults: Vec<Fault>) -> Faults {
        let placed = |mut fault: Fault| {
            let inner = fault.place.file.strip_prefix(&self.prefix).unwrap_or_default();
            let file = if inner.is_empty() { self.dir.clone() } else { self.dir.join(inner) };
            fault.place.file = Arc::from(file.display().to_string());
            fault.detail = fault.detail.replace(&self.prefix, "");
            fault
        };
        let mut faults: Vec<Fault> = faults.into_iter().map(placed).collect();
        faults.sort();
        Faults(faults)
    }
}
