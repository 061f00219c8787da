//! Model sets: the manifest and the files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::recognition::Reading;

/// What a set's runs cost; figures of the manifest, measured on one core. Only their proportions matter to the order of service, the bytes
/// to the activation budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    /// Detection, milliseconds a million input pixels.
    pub detection_ms_per_megapixel: f64,
    /// Detection's activations, bytes an input pixel.
    pub detection_bytes_per_pixel: usize,
    /// Orientation, milliseconds a crop.
    pub orientation_ms: f64,
    /// First value of a page's recognition cost in detections.
    pub recognition_to_detection: f64,
}

impl Costs {
    /// What recognition and detection of a page of a megapixel cost, before any page has been seen; so much this word weighs among theirs.
    pub(crate) fn usual(&self) -> (f64, f64) {
        let detection = self.detection_ms_per_megapixel;
        (self.recognition_to_detection * detection, detection)
    }
}

/// A recogniser.
#[derive(Debug, Clone, PartialEq)]
pub struct Recogniser {
    /// ONNX.
    pub file: PathBuf,
    /// The text of every class, from class 1; class 0 is the blank.
    pub characters: Vec<String>,
    /// What a run takes, milliseconds a pixel of input width.
    pub ms_per_pixel: f64,
    /// Its activations, bytes a pixel of input width.
    pub bytes_per_pixel: usize,
}

/// How far a cascade's first recogniser is trusted, by [`Reading::confidences`]; `docs/models.md` has what other limits do.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Trust {
    /// It is sure of a line where its mean confidence in the characters is this or more, 0 to 1. Spaces do not count: the second recogniser is
    /// no better at them.
    pub accept_line: f64,
    /// Where its mean confidence in a page's characters, spaces too, is below this, 0 to 1, it is not trusted with any line of the page. Print
    /// that it cannot read, it cannot space either.
    pub accept_page: f64,
}

impl Trust {
    pub(crate) fn is_sure(self, line: &Reading) -> bool {
        let characters = line.text.chars().zip(&line.confidences).filter(|(character, _)| !character.is_whitespace());
        mean(characters.map(|(_, confidence)| confidence)).is_some_and(|mean| mean >= self.accept_line)
    }

    pub(crate) fn is_lost<'a>(self, lines: impl Iterator<Item = &'a Reading>) -> bool {
        mean(lines.flat_map(|line| &line.confidences)).is_some_and(|mean| mean < self.accept_page)
    }
}

fn mean<'a>(values: impl Iterator<Item = &'a f32>) -> Option<f64> {
    let (count, sum) = values.fold((0u32, 0.0), |(count, sum), &value| (count + 1, sum + f64::from(value)));
    (count > 0).then(|| sum / f64::from(count))
}

/// The files of a set, found and readable.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSet {
    /// Detection, ONNX.
    pub det: PathBuf,
    /// Recognition.
    pub rec: Recogniser,
    /// In a cascade a cheaper recogniser goes first.
    pub rec_first: Option<(Recogniser, Trust)>,
    /// 0/180 orientation, ONNX; a set may have none.
    pub cls: Option<PathBuf>,
    /// What its runs cost.
    pub costs: Costs,
}

/// What the caller asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ModelSpec {
    /// A set of the manifest.
    Named(String),
    /// A folder with `det`, `rec` and perhaps `cls`, each in PaddleOCR's layout: `inference.onnx` and `inference.yml`. Instead of the
    /// latter `rec` may have `dict.txt`.
    Folder(PathBuf),
    /// Single models, each a folder in that layout or an ONNX file; `dict` is a text file with a character a line.
    Files {
        /// Detection.
        det: PathBuf,
        /// Recognition.
        rec: PathBuf,
        /// Dictionary, where recognition's folder has none.
        dict: Option<PathBuf>,
        /// Orientation.
        cls: Option<PathBuf>,
    },
}

#[derive(Deserialize)]
struct Manifest {
    default: String,
    sets: HashMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    files: HashMap<String, FileEntry>,
    detection: DetectionEntry,
    recognition: RecognitionEntry,
    recognition_first: Option<FirstEntry>,
    orientation: OrientationEntry,
    recognition_to_detection_cost: f64,
}

#[derive(Deserialize)]
struct DetectionEntry {
    bytes_per_pixel: usize,
    cost_ms_per_megapixel: f64,
}

#[derive(Deserialize)]
struct RecognitionEntry {
    bytes_per_column_px: usize,
    cost_ms_per_100px: f64,
}

#[derive(Deserialize)]
struct FirstEntry {
    #[serde(flatten)]
    costs: RecognitionEntry,
    #[serde(flatten)]
    trust: Trust,
}

#[derive(Deserialize)]
struct OrientationEntry {
    cost_ms: f64,
}

impl Entry {
    fn costs(&self) -> Costs {
        Costs {
            detection_ms_per_megapixel: self.detection.cost_ms_per_megapixel,
            detection_bytes_per_pixel: self.detection.bytes_per_pixel,
            orientation_ms: self.orientation.cost_ms,
            recognition_to_detection: self.recognition_to_detection_cost,
        }
    }
}

impl RecognitionEntry {
    fn recogniser(&self, file: PathBuf, characters: Vec<String>) -> Recogniser {
        let (ms_per_pixel, bytes_per_pixel) = (self.cost_ms_per_100px / 100.0, self.bytes_per_column_px);
        Recogniser { file, characters, ms_per_pixel, bytes_per_pixel }
    }
}

#[derive(Deserialize)]
struct FileEntry {
    path: PathBuf,
}

/// PaddleOCR's `inference.yml`, as far as we need it.
#[derive(Deserialize)]
struct InferenceYml {
    #[serde(rename = "PostProcess")]
    post_process: Option<PostProcess>,
}

#[derive(Deserialize)]
struct PostProcess {
    character_dict: Option<Vec<serde_yaml_ng::Value>>,
}

impl ModelSet {
    /// Finds the files of `spec`; named sets are looked up in the manifest of `folder`, then among the added ones in [`cache_folder`].
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] naming the file or the set that is missing, [`Error::ModelLoad`] naming the file that is wrong.
    pub fn find(spec: &ModelSpec, folder: &Path) -> Result<Self> {
        let manifest = read_manifest(folder)?;
        // Own models are taken to cost what the default set costs.
        let default = || manifest.sets.get(&manifest.default).ok_or_else(|| no_sets(folder));
        match spec {
            ModelSpec::Named(name) => {
                if let Some(entry) = manifest.sets.get(name) {
                    return Self::named(name, entry, folder);
                }
                let added = cache_folder().map(|cache| cache.join(name)).filter(|path| path.is_dir());
                Self::in_folder(&added.ok_or_else(|| unknown(name, &manifest))?, default()?)
            }
            ModelSpec::Folder(path) => Self::in_folder(path, default()?),
            ModelSpec::Files { det, rec, dict, cls } => {
                Self::own(det, rec, dict.as_deref(), cls.as_deref(), default()?)
            }
        }
    }

    /// The networks' files with what each one is: "det", "rec" or "cls".
    #[must_use]
    pub fn networks(&self) -> Vec<(PathBuf, &'static str)> {
        let first = self.rec_first.as_ref().map(|(first, _)| &first.file);
        let [det, rec] = [(&self.det, "det"), (&self.rec.file, "rec")];
        let all = [Some(det), Some(rec), first.map(|file| (file, "rec")), self.cls.as_ref().map(|file| (file, "cls"))];
        all.into_iter().flatten().map(|(file, kind)| (file.clone(), kind)).collect()
    }

    /// The same set with other files of its networks, by the files they stand for.
    #[must_use]
    pub fn with(mut self, replaced: &HashMap<PathBuf, PathBuf>) -> Self {
        let first = self.rec_first.as_mut().map(|(first, _)| &mut first.file);
        for file in [Some(&mut self.det), Some(&mut self.rec.file), first, self.cls.as_mut()].into_iter().flatten() {
            if let Some(other) = replaced.get(file) {
                file.clone_from(other);
            }
        }
        self
    }

    fn named(name: &str, entry: &Entry, folder: &Path) -> Result<Self> {
        let needed = |key: &str| match entry.files.get(key) {
            Some(file) => installed(name, &file.path, folder),
            None => Err(Error::ModelLoad(format!("the manifest's set {name:?} has no {key:?}"))),
        };
        let cls = entry.files.get("cls").map(|_| needed("cls")).transpose()?;
        let (det, rec) = (needed("det")?, needed("rec")?);
        let characters = match entry.files.get("dict") {
            Some(_) => characters_of_text(&needed("dict")?)?,
            None => characters_of_yml(&needed("rec_config")?)?,
        };
        let rec = entry.recognition.recogniser(rec, characters);
        let first = |first: &FirstEntry| -> Result<_> {
            let characters = characters_of_yml(&needed("rec_first_config")?)?;
            Ok((first.costs.recogniser(needed("rec_first")?, characters), first.trust))
        };
        let rec_first = entry.recognition_first.as_ref().map(first).transpose()?;
        Ok(Self { det, rec, rec_first, cls, costs: entry.costs() })
    }

    fn in_folder(path: &Path, like: &Entry) -> Result<Self> {
        let beside = |name: &str| Some(path.join(name)).filter(|path| path.exists());
        let (dict, cls) = (beside("rec/dict.txt"), beside("cls"));
        Self::own(&path.join("det"), &path.join("rec"), dict.as_deref(), cls.as_deref(), like)
    }

    fn own(det: &Path, rec: &Path, dict: Option<&Path>, cls: Option<&Path>, like: &Entry) -> Result<Self> {
        let (det, rec) = (model_file(det)?, model_file(rec)?);
        let cls = cls.map(model_file).transpose()?;
        let characters = match dict {
            Some(path) => characters_of_text(path)?,
            None => characters_of_yml(&rec.with_file_name("inference.yml"))?,
        };
        let rec = like.recognition.recogniser(rec, characters);
        Ok(Self { det, rec, rec_first: None, cls, costs: like.costs() })
    }
}

fn read_manifest(folder: &Path) -> Result<Manifest> {
    let path = folder.join("manifest.json");
    let text = read(&path)?;
    serde_json::from_str(&text)
        .map_err(|e| Error::ModelLoad(format!("{} is not a model manifest: {e}", path.display())))
}

/// Where downloaded and added sets are: `THREADSAFE_OCR_CACHE`, else `threadsafe-ocr` in `XDG_CACHE_HOME`, else in `~/.cache`.
#[must_use]
pub fn cache_folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("THREADSAFE_OCR_CACHE").or_else(|| {
        let caches = variable("XDG_CACHE_HOME").or_else(|| Some(std::env::home_dir()?.join(".cache")));
        Some(caches?.join("threadsafe-ocr"))
    })
}

/// A file of the set `name`: beside the manifest, or downloaded.
fn installed(name: &str, path: &Path, folder: &Path) -> Result<PathBuf> {
    let places = [Some(folder.to_owned()), cache_folder()];
    let found = places.iter().flatten().map(|place| place.join(path)).find(|path| path.is_file());
    if let Some(path) = found {
        return Ok(std::path::absolute(&path).unwrap_or(path));
    }
    let places: Vec<String> = places.iter().flatten().map(|place| place.display().to_string()).collect();
    Err(Error::ModelNotFound(format!(
        "the model set {name:?} is not on this machine (no {} in {}); get it with: threadsafe-ocr models get {name}",
        path.display(),
        places.join(" or ")
    )))
}

fn unknown(name: &str, manifest: &Manifest) -> Error {
    let mut names: Vec<&str> = manifest.sets.keys().map(String::as_str).collect();
    names.sort_unstable();
    let known = names.join(", ");
    Error::ModelNotFound(format!(
        "there is no model set {name:?}; there is: {known}. For own models give a folder, or {{\"det\":, \"rec\":, \"dict\":}}"
    ))
}

fn no_sets(folder: &Path) -> Error {
    Error::ModelNotFound(format!("the manifest in {} has no default model set", folder.display()))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::ModelNotFound(format!("{} is missing", path.display())),
        _ => Error::ModelLoad(format!("{} cannot be read: {e}", path.display())),
    })
}

/// The ONNX file of a model given as file or folder.
fn model_file(path: &Path) -> Result<PathBuf> {
    let file = if path.is_dir() { path.join("inference.onnx") } else { path.to_owned() };
    if file.is_file() {
        return Ok(std::path::absolute(&file).unwrap_or(file));
    }
    let hint = if path.join("inference.pdiparams").exists() {
        "; the folder has Paddle's own format: convert it with paddle2onnx first"
    } else {
        ""
    };
    Err(Error::ModelNotFound(format!("{} is missing{hint}", file.display())))
}

fn characters_of_yml(path: &Path) -> Result<Vec<String>> {
    let wrong = |why: String| Error::ModelLoad(format!("{}: {why}; give the characters as \"dict\"", path.display()));
    let text = read(path).map_err(|error| match error {
        Error::ModelNotFound(what) => Error::ModelNotFound(format!("{what}; give the characters as \"dict\"")),
        other => other,
    })?;
    let yml: InferenceYml = serde_yaml_ng::from_str(&text).map_err(|e| wrong(format!("not an inference.yml: {e}")))?;
    let characters = yml.post_process.and_then(|post| post.character_dict);
    let characters = characters.ok_or_else(|| wrong("PostProcess.character_dict is missing".into()))?;
    let text = |value: serde_yaml_ng::Value| match value {
        serde_yaml_ng::Value::String(text) => Ok(text),
        serde_yaml_ng::Value::Number(number) => Ok(number.to_string()),
        other => Err(wrong(format!("character_dict holds {other:?}"))),
    };
    characters.into_iter().map(text).collect()
}

/// Lines are not stripped: the first character of PP-OCRv5's dictionary is a wide space.
fn characters_of_text(path: &Path) -> Result<Vec<String>> {
    Ok(read(path)?.lines().map(ToString::to_string).collect())
}

/// The text of every class: the blank, the characters, and a space where the net has one class more.
///
/// # Errors
/// [`Error::ModelLoad`] when the numbers do not fit.
pub fn dictionary(characters: &[String], classes: usize, rec: &Path) -> Result<Vec<String>> {
    let mut texts = Vec::with_capacity(classes);
    texts.push(String::new());
    texts.extend_from_slice(characters);
    if texts.len() + 1 == classes {
        texts.push(" ".into());
    }
    if texts.len() == classes {
        return Ok(texts);
    }
    Err(Error::ModelLoad(format!(
        "{}: the model has {classes} classes and its dictionary {} characters; they belong to different models",
        rec.display(),
        characters.len()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUST: Trust = Trust { accept_line: 0.99, accept_page: 0.976 };

    fn read(text: &str, confidences: &[f32]) -> Reading {
        assert_eq!(text.chars().count(), confidences.len());
        Reading { text: text.into(), confidences: confidences.into(), ..Reading::default() }
    }

    #[test]
    fn a_first_recogniser_is_sure_of_a_line_of_whose_characters_it_is_sure_spaces_aside() {
        assert!(TRUST.is_sure(&read("ab", &[0.985, 1.0])));
        assert!(!TRUST.is_sure(&read("ab", &[0.975, 1.0])));
        assert!(TRUST.is_sure(&read("a b", &[0.995, 0.5, 0.995])));
        assert!(TRUST.is_sure(&read("a\u{3000}b", &[0.995, 0.5, 0.995])));
        assert!(!TRUST.is_sure(&read("a b", &[0.987, 1.0, 0.987])));
        assert!(!TRUST.is_sure(&read(" ", &[1.0])), "there may be something that it does not see");
        assert!(!TRUST.is_sure(&Reading::default()), "there may be something that it does not see");
    }

    #[test]
    fn a_first_recogniser_that_is_less_sure_of_a_page_is_not_trusted_with_the_lines_it_is_sure_of() {
        let is_lost = |lines: &[Reading]| TRUST.is_lost(lines.iter());
        assert!(is_lost(&[read("ab", &[0.95, 1.0])]));
        assert!(!is_lost(&[read("a", &[0.95]), read("bcd", &[1.0; 3])]), "a line has the weight of its characters");
        assert!(is_lost(&[read("a b", &[1.0, 0.9, 1.0])]), "spaces tell of a page too");
        assert!(!is_lost(&[Reading::default()]));
        assert!(!is_lost(&[]));
    }
}
