//! ONNX files: a recogniser without its last layer, which [`crate::head`] computes.
//!
//! A file is a tree of protocol buffers' messages (`onnx.proto`). Only what the cut needs is understood here; all else is copied as it is, so
//! nothing of a foreign model can get lost.

use std::collections::{BTreeMap, HashMap};

use crate::head::Head;

/// The model without its last layer, and the layer. `None` where the model ends in another way, or the file is no model: then it is run as it
/// is.
///
/// The layer is `Softmax(Add(MatMul(columns, weights), bias))`, over the classes of N x T x classes, with `Identity` anywhere between. The weights
/// may be `DequantizeLinear(integers, scales)`, a scale for each class.
#[must_use]
pub fn without_head(model: &[u8]) -> Option<(Vec<u8>, Head)> {
    let parts = fields(model)?;
    let place = parts.iter().position(|part| part.number == model::GRAPH)?;
    let graph = Graph::read(parts[place].bytes?)?;
    let (head, changes) = graph.cut_head()?;
    let mut cut = Vec::with_capacity(model.len());
    for (at, part) in parts.iter().enumerate() {
        if at == place {
            write(&mut cut, model::GRAPH, &graph.with(&changes));
        } else {
            cut.extend_from_slice(part.whole);
        }
    }
    Some((cut, head))
}

/// What becomes of fields of the graph, by their places: nothing, or another field.
type Changes = BTreeMap<usize, Vec<u8>>;

/// Numbers of fields, of each kind of message.
mod model {
    pub(super) const GRAPH: u64 = 7;
}
mod graph {
    pub(super) const NODE: u64 = 1;
    pub(super) const INITIALIZER: u64 = 5;
    pub(super) const INPUT: u64 = 11;
    pub(super) const OUTPUT: u64 = 12;
}
mod node {
    pub(super) const INPUT: u64 = 1;
    pub(super) const OUTPUT: u64 = 2;
    pub(super) const KIND: u64 = 4;
    pub(super) const DOMAIN: u64 = 7;
    pub(super) const ATTRIBUTE: u64 = 5;
}
mod attribute {
    pub(super) const NAME: u64 = 1;
    pub(super) const INTEGER: u64 = 3;
    pub(super) const TENSOR: u64 = 5;
}
mod tensor {
    pub(super) const DIMENSIONS: u64 = 1;
    pub(super) const TYPE: u64 = 2;
    pub(super) const FLOATS: u64 = 4;
    pub(super) const NAME: u64 = 8;
    pub(super) const RAW: u64 = 9;
    pub(super) const PLACE: u64 = 14;
    pub(super) const IS_F32: u64 = 1;
    pub(super) const IS_I8: u64 = 3;
    pub(super) const IS_OUTSIDE: u64 = 1;
}
mod value {
    pub(super) const NAME: u64 = 1;
    pub(super) const TYPE: u64 = 2;
    pub(super) const TYPE_TENSOR: u64 = 1;
    pub(super) const TENSOR_ELEMENT: u64 = 1;
    pub(super) const TENSOR_SHAPE: u64 = 2;
    pub(super) const SHAPE_DIMENSION: u64 = 1;
}

/// A field of a message.
#[derive(Clone, Copy)]
struct Field<'a> {
    number: u64,
    /// With its number and length.
    whole: &'a [u8],
    /// A string, a message or packed numbers.
    bytes: Option<&'a [u8]>,
    /// An integer.
    integer: Option<u64>,
}

impl<'a> Field<'a> {
    fn text(&self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes?).ok()
    }
}

fn fields(mut message: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut all = Vec::new();
    while !message.is_empty() {
        let mut rest = message;
        let tag = varint(&mut rest)?;
        let (mut integer, mut bytes) = (None, None);
        match tag & 7 {
            0 => integer = Some(varint(&mut rest)?),
            1 => rest = rest.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                bytes = Some(rest.get(..length)?);
                rest = &rest[length..];
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
        let whole = &message[..message.len() - rest.len()];
        all.push(Field { number: tag >> 3, whole, bytes, integer });
        message = rest;
    }
    Some(all)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn write_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// Appends a field of bytes.
fn write(to: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    write_varint(to, number << 3 | 2);
    write_varint(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

/// A node. `kind` is empty for an operator of another domain than ONNX's.
#[derive(Default)]
struct Node<'a> {
    kind: &'a str,
    inputs: Vec<&'a str>,
    outputs: Vec<&'a str>,
    attributes: Vec<&'a [u8]>,
}

impl<'a> Node<'a> {
    fn read(message: &'a [u8]) -> Option<Self> {
        let (mut node, mut is_standard) = (Self::default(), true);
        for field in fields(message)? {
            match field.number {
                node::INPUT => node.inputs.push(field.text()?),
                node::OUTPUT => node.outputs.push(field.text()?),
                node::KIND => node.kind = field.text()?,
                node::DOMAIN => is_standard = matches!(field.text()?, "" | "ai.onnx"),
                node::ATTRIBUTE => node.attributes.push(field.bytes?),
                _ => {}
            }
        }
        if !is_standard {
            node.kind = "";
        }
        Some(node)
    }

    /// The fields of an attribute.
    fn attribute(&self, name: &str) -> Option<Vec<Field<'a>>> {
        let mut all = self.attributes.iter().filter_map(|message| fields(message));
        all.find(|parts| parts.iter().any(|part| part.number == attribute::NAME && part.text() == Some(name)))
    }

    /// An attribute that is an integer.
    fn integer(&self, name: &str) -> Option<i64> {
        let parts = self.attribute(name)?;
        Some(parts.iter().find(|field| field.number == attribute::INTEGER)?.integer?.cast_signed())
    }
}

struct Graph<'a> {
    parts: Vec<Field<'a>>,
    /// By the places of their fields in `parts`.
    nodes: HashMap<usize, Node<'a>>,
    /// Places of the initialisers, by name.
    initializers: HashMap<&'a str, usize>,
    /// Places of the nodes, by the names of their outputs.
    makers: HashMap<&'a str, usize>,
    /// How often a value is used: as an input of a node, as the model's input or output.
    uses: HashMap<&'a str, usize>,
    output: &'a str,
    output_place: usize,
}

impl<'a> Graph<'a> {
    fn read(message: &'a [u8]) -> Option<Self> {
        let (mut nodes, mut initializers, mut outputs) = (HashMap::new(), HashMap::new(), Vec::new());
        let (mut makers, mut uses) = (HashMap::new(), HashMap::new());
        let parts = fields(message)?;
        for (at, part) in parts.iter().enumerate() {
            match part.number {
                graph::NODE => {
                    let node = Node::read(part.bytes?)?;
                    makers.extend(node.outputs.iter().map(|&output| (output, at)));
                    node.inputs.iter().for_each(|&input| *uses.entry(input).or_default() += 1);
                    nodes.insert(at, node);
                }
                graph::INITIALIZER => {
                    let tensor = fields(part.bytes?)?;
                    let is_outside =
                        |field: &Field| field.number == tensor::PLACE && field.integer == Some(tensor::IS_OUTSIDE);
                    if tensor.iter().any(is_outside) {
                        // In a file beside the model; what is loaded from memory has nothing beside it.
                        return None;
                    }
                    let name = tensor.iter().find(|field| field.number == tensor::NAME)?;
                    initializers.insert(name.text()?, at);
                }
                graph::INPUT => {
                    // A constant that is an input too may be given by the caller.
                    let input = fields(part.bytes?)?;
                    let name = input.iter().find(|field| field.number == value::NAME)?;
                    *uses.entry(name.text()?).or_default() += 1;
                }
                graph::OUTPUT => outputs.push((at, fields(part.bytes?)?)),
                _ => {}
            }
        }
        let [(output_place, output)] = &*outputs else { return None };
        let output = output.iter().find(|field| field.number == value::NAME)?.text()?;
        *uses.entry(output).or_default() += 1;
        let output_place = *output_place;
        Some(Self { parts, nodes, initializers, makers, uses, output, output_place })
    }

    /// The graph's message.
    fn with(&self, changes: &Changes) -> Vec<u8> {
        let mut message = Vec::new();
        for (at, part) in self.parts.iter().enumerate() {
            message.extend_from_slice(changes.get(&at).map_or(part.whole, Vec::as_slice));
        }
        message
    }

    /// The last layer, and what its absence changes.
    fn cut_head(&self) -> Option<(Head, Changes)> {
        let mut cut = Changes::new();
        let softmax = self.take_last(self.output, "Softmax", &mut cut)?;
        let axis = softmax.integer("axis")?;
        let [logits] = *softmax.inputs else { return None };
        let add = self.take_last(logits, "Add", &mut cut)?;
        let [product, bias] = *add.inputs else { return None };
        let matmul = self.take_last(product, "MatMul", &mut cut)?;
        let [columns, weights] = *matmul.inputs else { return None };
        let bias = self.take_constant(bias, tensor::IS_F32, &mut cut)?;
        let weights = self.take_weights(weights, &mut cut)?;
        let ([_, classes], [biases]) = (&*weights.dimensions, &*bias.dimensions) else { return None };
        if !matches!(axis, 2 | -1) || biases != classes {
            return None;
        }
        let head = Head::new(&weights.values, &bias.values)?;
        let mut output = Vec::new();
        write(&mut output, graph::OUTPUT, &f32_value(columns));
        cut.insert(self.output_place, output);
        Some((head, cut))
    }

    /// The node of `kind` that makes the value `name`, which is used once; it and the `Identity` nodes on the way to it are cut.
    fn take_last(&self, mut name: &'a str, kind: &str, cut: &mut Changes) -> Option<&Node<'a>> {
        loop {
            if self.uses.get(name) != Some(&1) {
                return None;
            }
            let (at, node) = self.maker(name)?;
            cut.insert(at, Vec::new());
            if node.kind == kind {
                return Some(node);
            }
            let ("Identity", [input]) = (node.kind, &*node.inputs) else { return None };
            name = input;
        }
    }

    /// The place and the node that makes the value `name`, and nothing else.
    fn maker(&self, name: &str) -> Option<(usize, &Node<'a>)> {
        let &at = self.makers.get(name)?;
        let node = self.nodes.get(&at)?;
        (node.outputs == [name]).then_some((at, node))
    }

    /// The last layer's weights, which are used once; they are cut.
    fn take_weights(&self, name: &str, cut: &mut Changes) -> Option<Tensor> {
        let Some((at, node)) = self.maker(name).filter(|(_, node)| node.kind == "DequantizeLinear") else {
            return self.take_constant(name, tensor::IS_F32, cut);
        };
        // Without a zero point.
        let [integers, scales] = *node.inputs else { return None };
        if self.uses.get(name) != Some(&1) || node.integer("axis") != Some(1) {
            return None;
        }
        cut.insert(at, Vec::new());
        let mut weights = self.take_constant(integers, tensor::IS_I8, cut)?;
        let scales = self.take_constant(scales, tensor::IS_F32, cut)?;
        let ([_, columns], [scaled]) = (&*weights.dimensions, &*scales.dimensions) else { return None };
        if columns != scaled || *scaled == 0 {
            return None;
        }
        for row in weights.values.chunks_exact_mut(scales.values.len()) {
            row.iter_mut().zip(&scales.values).for_each(|(value, scale)| *value *= scale);
        }
        Some(weights)
    }

    /// A constant of this type that is used once; it is cut.
    fn take_constant(&self, name: &str, kind: u64, cut: &mut Changes) -> Option<Tensor> {
        if self.uses.get(name) != Some(&1) {
            return None;
        }
        let (at, tensor) = if let Some(&at) = self.initializers.get(name) {
            (at, self.parts[at].bytes?)
        } else {
            let (at, node) = self.maker(name).filter(|(_, node)| node.kind == "Constant")?;
            let value = node.attribute("value")?;
            (at, value.iter().find(|field| field.number == attribute::TENSOR)?.bytes?)
        };
        cut.insert(at, Vec::new());
        Tensor::read(tensor, kind)
    }
}

/// A tensor, and its values as f32.
struct Tensor {
    dimensions: Vec<u64>,
    values: Vec<f32>,
}

impl Tensor {
    /// One of f32 or of integers of 8 bits, whichever is wanted.
    fn read(message: &[u8], wanted: u64) -> Option<Self> {
        let (mut dimensions, mut kind, mut bytes) = (Vec::new(), None, None);
        for field in fields(message)? {
            match (field.number, field.integer, field.bytes) {
                (tensor::DIMENSIONS, Some(size), _) => dimensions.push(size),
                (tensor::DIMENSIONS, _, Some(mut packed)) => {
                    while !packed.is_empty() {
                        dimensions.push(varint(&mut packed)?);
                    }
                }
                (tensor::TYPE, ..) => kind = field.integer,
                (tensor::RAW | tensor::FLOATS, _, Some(values)) => bytes = Some(values),
                (tensor::FLOATS, ..) => return None,
                _ => {}
            }
        }
        let bytes = bytes.filter(|_| kind == Some(wanted))?;
        let values: Vec<f32> = if wanted == tensor::IS_I8 {
            bytes.iter().map(|&byte| f32::from(byte.cast_signed())).collect()
        } else {
            let (values, rest) = bytes.as_chunks();
            rest.is_empty().then(|| values.iter().map(|&value| f32::from_le_bytes(value)).collect())?
        };
        let size = dimensions.iter().try_fold(1, |size: u64, &side| size.checked_mul(side))?;
        (size == values.len() as u64).then_some(Self { dimensions, values })
    }
}

/// What says that the value `name` is a tensor of f32 with three dimensions, all free.
fn f32_value(name: &str) -> Vec<u8> {
    let (mut tensor, mut kind, mut value) = (Vec::new(), Vec::new(), Vec::new());
    write_varint(&mut tensor, value::TENSOR_ELEMENT << 3);
    write_varint(&mut tensor, tensor::IS_F32);
    let mut shape = Vec::new();
    (0..3).for_each(|_| write(&mut shape, value::SHAPE_DIMENSION, &[]));
    write(&mut tensor, value::TENSOR_SHAPE, &shape);
    write(&mut kind, value::TYPE_TENSOR, &tensor);
    write(&mut value, value::NAME, name.as_bytes());
    write(&mut value, value::TYPE, &kind);
    value
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn model(kind: &str) -> Vec<u8> {
        std::fs::read(format!("{}/models/{kind}/inference.onnx", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    #[test]
    fn recognisers_lose_their_last_layer_and_only_that() {
        for (kind, features, classes) in [("v6-small/rec", 120, 18710), ("v6-cascade/rec_first", 80, 6906)] {
            let whole = model(kind);
            let (cut, head) = without_head(&whole).unwrap();
            assert_eq!((head.features(), head.classes()), (features, classes));
            // Less the weights and the bias, and some nodes.
            let less = whole.len() - cut.len() - 4 * classes * (features + 1);
            assert!((100..1000).contains(&less), "{less}");
            assert!(without_head(&cut).is_none());
        }
    }

    #[test]
    fn weights_of_the_last_layer_may_be_integers() {
        let [(exact_cut, exact), (cut, head)] =
            ["v6-small/rec", "v6-small-int8/rec"].map(|kind| without_head(&model(kind)).unwrap());
        assert_eq!((head.features(), head.classes()), (exact.features(), exact.classes()));
        assert!(cut.len() < exact_cut.len() / 2);
        // Rounded weights tell nearly all of any columns' classes.
        let columns: Vec<f32> = (0..120 * 40).map(|at| ((at * 37 % 101) as f32 - 50.0) / 25.0).collect();
        let [wanted, found] = [exact, head].map(|head| head.best_classes(&columns));
        let alike = |(a, b): &(&(u32, f32), &(u32, f32))| a.0 == b.0 && (a.1 - b.1).abs() < 0.1;
        let alike = wanted.iter().zip(&found).filter(alike).count();
        assert!(alike >= 36, "{alike}");
    }

    /// A tensor of the graph, of zeros.
    fn zeros(name: &str, kind: u64, dimensions: &[u8], bytes: usize) -> Vec<u8> {
        let mut tensor = Vec::new();
        write(&mut tensor, tensor::DIMENSIONS, dimensions);
        write_varint(&mut tensor, tensor::TYPE << 3);
        write_varint(&mut tensor, kind);
        write(&mut tensor, tensor::NAME, name.as_bytes());
        write(&mut tensor, tensor::RAW, &vec![0; bytes]);
        tensor
    }

    /// A last layer of 2 features and 3 classes, and nothing else.
    fn layer(weights: Vec<u8>, scales: Option<Vec<u8>>, bias: Vec<u8>, axis: u8) -> Vec<u8> {
        let mut graph = Vec::new();
        let mut add = |kind: &str, inputs: &[&str], output: &str, axis: u8| {
            let (mut node, mut attribute) = (Vec::new(), Vec::new());
            for input in inputs {
                write(&mut node, node::INPUT, input.as_bytes());
            }
            write(&mut node, node::OUTPUT, output.as_bytes());
            write(&mut node, node::KIND, kind.as_bytes());
            write(&mut attribute, attribute::NAME, b"axis");
            attribute.extend([(attribute::INTEGER << 3) as u8, axis]);
            write(&mut node, node::ATTRIBUTE, &attribute);
            write(&mut graph, graph::NODE, &node);
        };
        add("MatMul", &["columns", if scales.is_some() { "scaled" } else { "weights" }], "product", 0);
        add("Add", &["product", "bias"], "logits", 0);
        add("Softmax", &["logits"], "classes", 2);
        if scales.is_some() {
            add("DequantizeLinear", &["weights", "scales"], "scaled", axis);
        }
        [Some(weights), scales, Some(bias)]
            .iter()
            .flatten()
            .for_each(|tensor| write(&mut graph, graph::INITIALIZER, tensor));
        write(&mut graph, graph::INPUT, &f32_value("columns"));
        write(&mut graph, graph::OUTPUT, &f32_value("classes"));
        let mut model = Vec::new();
        write(&mut model, model::GRAPH, &graph);
        model
    }

    #[test]
    fn a_last_layer_of_wrong_types_or_sizes_is_left_to_the_runtime() {
        let integers = || zeros("weights", tensor::IS_I8, &[2, 3], 6);
        let weights = || zeros("weights", tensor::IS_F32, &[2, 3], 24);
        let scales = || Some(zeros("scales", tensor::IS_F32, &[3], 12));
        let bias = || zeros("bias", tensor::IS_F32, &[3], 12);
        assert!(without_head(&layer(integers(), scales(), bias(), 1)).is_some());
        assert!(without_head(&layer(weights(), None, bias(), 1)).is_some());
        let short = |name: &str, bytes| zeros(name, tensor::IS_F32, &[3], bytes);
        for wrong in [
            layer(integers(), scales(), bias(), 0),
            layer(integers(), None, bias(), 1),
            layer(weights(), scales(), bias(), 1),
            layer(integers(), Some(short("scales", 8)), bias(), 1),
            layer(integers(), Some(short("scales", 0)), bias(), 1),
            layer(integers(), Some(zeros("scales", tensor::IS_I8, &[3], 3)), bias(), 1),
            layer(integers(), scales(), short("bias", 8), 1),
            layer(integers(), scales(), zeros("bias", tensor::IS_I8, &[3], 3), 1),
            layer(
                zeros("weights", tensor::IS_I8, &[2, 0], 0),
                Some(zeros("scales", tensor::IS_F32, &[0], 0)),
                bias(),
                1,
            ),
            layer(zeros("weights", tensor::IS_F32, &[2, 3], 20), None, bias(), 1),
        ] {
            assert!(without_head(&wrong).is_none());
        }
    }

    #[test]
    fn other_models_and_broken_ones_are_left_as_they_are() {
        assert!(["v6-small/det", "v6-small/cls"].iter().all(|kind| without_head(&model(kind)).is_none()));
        assert!(without_head(b"not a model").is_none());
        assert!(without_head(&[]).is_none());
        for whole in ["v6-cascade/rec_first", "v6-small-int8/rec"].map(model) {
            let graph =
                fields(&whole).unwrap().into_iter().find(|part| part.number == model::GRAPH).unwrap().bytes.unwrap();
            let ends = (0..graph.len()).step_by(graph.len() / 50 + 1);
            for end in ends.chain(graph.len() - 300..graph.len()) {
                let mut broken = Vec::new();
                write(&mut broken, model::GRAPH, &graph[..end]);
                // Towards the end, where nothing that is needed is missing any more, it may be cut; it never panics.
                assert!(without_head(&broken).is_none() || end > graph.len() / 2, "{end}");
            }
        }
    }
}
