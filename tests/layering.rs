//! Who may know whom: `python -> engine -> pipeline -> stages -> schedule / runtime / geometry / image -> error`.

use std::path::{Path, PathBuf};

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("src can be listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

/// Files of `src` (by their path in it) whose code, comments left out, has one of `words`.
fn files_with(words: &[&str]) -> Vec<String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let uses = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).expect("a source file can be read");
        text.lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .any(|line| words.iter().any(|w| line.contains(w)))
    };
    let name = |path: PathBuf| path.strip_prefix(&src).expect("inside src").display().to_string();
    let mut names: Vec<String> = sources(&src).into_iter().filter(uses).map(name).collect();
    names.sort();
    names
}

fn inside(files: &[String], allowed: &[&str]) -> Vec<String> {
    files.iter().filter(|file| !allowed.iter().any(|a| file.starts_with(a))).cloned().collect()
}

#[test]
fn only_the_bindings_name_pyo3_and_numpy() {
    assert_eq!(inside(&files_with(&["pyo3", "numpy::"]), &["python/"]), Vec::<String>::new());
}

#[test]
fn only_the_runtime_names_ort() {
    assert_eq!(inside(&files_with(&["ort::"]), &["runtime.rs"]), Vec::<String>::new());
}

#[test]
fn only_image_names_the_image_crate() {
    let users = files_with(&["use image::", "use ::image", "image::DynamicImage", "tiff::"]);
    assert_eq!(inside(&users, &["image.rs"]), Vec::<String>::new());
}

#[test]
fn the_schedule_knows_no_images_no_nets_and_no_pages() {
    let users = files_with(&[
        "crate::image",
        "crate::runtime",
        "crate::net",
        "crate::models",
        "crate::pipeline",
        "crate::engine",
        "crate::process",
        "crate::geometry",
    ]);
    assert_eq!(
        users.into_iter().filter(|file| file.starts_with("schedule/")).collect::<Vec<_>>(),
        Vec::<String>::new()
    );
}

#[test]
fn stages_never_import_the_pipeline_or_the_engine() {
    let users = files_with(&["crate::pipeline", "crate::engine", "crate::process"]);
    let stages =
        ["detection.rs", "orientation.rs", "recognition.rs", "geometry.rs", "image.rs", "line.rs", "resample.rs"];
    assert_eq!(
        users.into_iter().filter(|file| stages.contains(&file.as_str())).collect::<Vec<_>>(),
        Vec::<String>::new()
    );
}

#[test]
fn the_nets_stages_never_import_each_other() {
    for stage in ["detection", "orientation", "recognition"] {
        let users = files_with(&[&format!("crate::{stage}")]);
        let others = users
            .into_iter()
            .filter(|file| ["detection.rs", "orientation.rs", "recognition.rs"].contains(&file.as_str()));
        assert_eq!(others.collect::<Vec<_>>(), Vec::<String>::new());
    }
}

#[test]
fn unsafe_code_stands_in_three_places() {
    // Calls of ONNX Runtime, the matrix unit's instructions, and loops for processors that were asked whether they can run them.
    assert_eq!(files_with(&["allow(unsafe_code)"]), ["runtime.rs", "tiles.rs", "vectors.rs"]);
}
