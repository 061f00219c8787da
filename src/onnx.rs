//! ONNX files: reading a graph, and writing it with changes.
//!
//! A file is a tree of protocol buffers' messages (`onnx.proto`). Only what [`crate::rewrite`], [`crate::blocks`], [`crate::chains`] and `tiled` need is
//! understood here; what is not changed is copied as it is, so nothing of a foreign model can get lost.

use std::collections::{BTreeMap, HashMap};

/// What becomes of fields of the graph, by their places: nothing, or other fields.
pub(crate) type Changes = BTreeMap<usize, Vec<u8>>;

/// The model, its graph changed, and what `change` gives; `None` where it changes nothing, or the file is no model.
pub(crate) fn with_changes<T>(model: &[u8], change: impl FnOnce(&Graph, &mut Changes) -> T) -> Option<(Vec<u8>, T)> {
    let parts = fields(model)?;
    let place = parts.iter().position(|part| part.number == model::GRAPH)?;
    let graph = Graph::read(parts[place].bytes?)?;
    let mut changes = Changes::new();
    let given = change(&graph, &mut changes);
    if changes.is_empty() {
        return None;
    }
    let mut changed = Vec::with_capacity(model.len());
    for (at, part) in parts.iter().enumerate() {
        if at == place {
            write(&mut changed, model::GRAPH, &graph.with(&changes));
        } else {
            changed.extend_from_slice(part.whole);
        }
    }
    Some((changed, given))
}

/// Whether the file is a model that is understood here, with nothing in other files.
pub(crate) fn is_whole(model: &[u8]) -> bool {
    let graph = fields(model).and_then(|parts| parts.into_iter().find(|part| part.number == model::GRAPH)?.bytes);
    graph.and_then(Graph::read).is_some()
}

/// Numbers of fields, of each kind of message.
mod model {
    pub(super) const GRAPH: u64 = 7;
    pub(super) const DOMAIN: u64 = 8;
}
mod domain {
    pub(super) const NAME: u64 = 1;
    pub(super) const VERSION: u64 = 2;
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
    pub(super) const NAME: u64 = 3;
    pub(super) const KIND: u64 = 4;
    pub(super) const DOMAIN: u64 = 7;
    pub(super) const ATTRIBUTE: u64 = 5;
}
mod attribute {
    pub(super) const NAME: u64 = 1;
    pub(super) const NUMBER: u64 = 2;
    pub(super) const INTEGER: u64 = 3;
    pub(super) const TEXT: u64 = 4;
    pub(super) const TENSOR: u64 = 5;
    pub(super) const GRAPH: u64 = 6;
    pub(super) const INTEGERS: u64 = 8;
    pub(super) const GRAPHS: u64 = 11;
    pub(super) const TYPE: u64 = 20;
    pub(super) const IS_INTEGER: u64 = 2;
    pub(super) const IS_TEXT: u64 = 3;
    pub(super) const IS_INTEGERS: u64 = 7;
}
mod tensor {
    pub(super) const DIMENSIONS: u64 = 1;
    pub(super) const TYPE: u64 = 2;
    pub(super) const FLOATS: u64 = 4;
    pub(super) const NAME: u64 = 8;
    pub(super) const RAW: u64 = 9;
    pub(super) const PLACE: u64 = 14;
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

/// Appends a field of an integer.
fn write_integer(to: &mut Vec<u8>, number: u64, value: u64) {
    write_varint(to, number << 3);
    write_varint(to, value);
}

/// Integers that are a field each, or packed in one.
fn integers(fields: &[Field], number: u64) -> Option<Vec<u64>> {
    let mut all = Vec::new();
    for field in fields.iter().filter(|field| field.number == number) {
        all.extend(field.integer);
        let mut packed = field.bytes.unwrap_or_default();
        while !packed.is_empty() {
            all.push(varint(&mut packed)?);
        }
    }
    Some(all)
}

/// A node.
#[derive(Default)]
pub(crate) struct Node<'a> {
    /// The operator; empty where it is of another domain than ONNX's.
    pub(crate) kind: &'a str,
    /// Domain and operator, where the domain is another one.
    pub(crate) foreign: (&'a str, &'a str),
    pub(crate) inputs: Vec<&'a str>,
    pub(crate) outputs: Vec<&'a str>,
    pub(crate) attributes: Vec<&'a [u8]>,
}

impl<'a> Node<'a> {
    fn read(message: &'a [u8]) -> Option<Self> {
        let (mut node, mut kind, mut domain) = (Self::default(), "", "");
        for field in fields(message)? {
            match field.number {
                node::INPUT => node.inputs.push(field.text()?),
                node::OUTPUT => node.outputs.push(field.text()?),
                node::KIND => kind = field.text()?,
                node::DOMAIN => domain = field.text()?,
                node::ATTRIBUTE => {
                    let parts = fields(field.bytes?)?;
                    if parts.iter().any(|part| matches!(part.number, attribute::GRAPH | attribute::GRAPHS)) {
                        // A graph within the graph takes values without naming them as inputs.
                        return None;
                    }
                    node.attributes.push(field.bytes?);
                }
                _ => {}
            }
        }
        match domain {
            "" | "ai.onnx" => node.kind = kind,
            _ => node.foreign = (domain, kind),
        }
        Some(node)
    }

    /// Domain and operator, whichever the domain is; ONNX's is empty.
    pub(crate) fn operator(&self) -> (&'a str, &'a str) {
        if self.kind.is_empty() { self.foreign } else { ("", self.kind) }
    }

    /// The fields of an attribute.
    fn attribute(&self, name: &str) -> Option<Vec<Field<'a>>> {
        let mut all = self.attributes.iter().filter_map(|message| fields(message));
        all.find(|parts| parts.iter().any(|part| part.number == attribute::NAME && part.text() == Some(name)))
    }

    /// An attribute that is an integer.
    pub(crate) fn integer(&self, name: &str) -> Option<i64> {
        let parts = self.attribute(name)?;
        Some(parts.iter().find(|field| field.number == attribute::INTEGER)?.integer?.cast_signed())
    }

    /// An attribute that is a number.
    pub(crate) fn number(&self, name: &str) -> Option<f32> {
        let parts = self.attribute(name)?;
        let number = parts.iter().find(|field| field.number == attribute::NUMBER)?;
        number.whole.last_chunk().map(|&bytes| f32::from_le_bytes(bytes))
    }

    /// An attribute that is a text.
    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        self.attribute(name)?.iter().find(|field| field.number == attribute::TEXT)?.text()
    }

    /// An attribute that is a list of integers.
    pub(crate) fn integers(&self, name: &str) -> Option<Vec<u64>> {
        integers(&self.attribute(name)?, attribute::INTEGERS)
    }
}

pub(crate) struct Graph<'a> {
    parts: Vec<Field<'a>>,
    /// By the places of their fields in `parts`.
    pub(crate) nodes: BTreeMap<usize, Node<'a>>,
    /// Places of the initialisers, by name.
    initializers: HashMap<&'a str, usize>,
    /// Places of the nodes, by the names of their outputs.
    makers: HashMap<&'a str, usize>,
    /// How often a value is used: as an input of a node, as the model's input or output.
    uses: HashMap<&'a str, usize>,
    /// What `Identity` copies, by the names of the copies: the first one, not a copy itself.
    copied: HashMap<&'a str, &'a str>,
    /// Places of the nodes that take a value or a copy of it, `Identity` left out, by the value's name.
    users: HashMap<&'a str, Vec<usize>>,
    pub(crate) output: &'a str,
    pub(crate) output_place: usize,
}

impl<'a> Graph<'a> {
    fn read(message: &'a [u8]) -> Option<Self> {
        let (mut nodes, mut initializers, mut outputs) = (BTreeMap::new(), HashMap::new(), Vec::new());
        let (mut makers, mut uses) = (HashMap::new(), HashMap::new());
        let (mut copied, mut users) = (HashMap::new(), HashMap::<_, Vec<_>>::new());
        let parts = fields(message)?;
        for (at, part) in parts.iter().enumerate() {
            match part.number {
                graph::NODE => {
                    let node = Node::read(part.bytes?)?;
                    makers.extend(node.outputs.iter().map(|&output| (output, at)));
                    node.inputs.iter().for_each(|&input| *uses.entry(input).or_default() += 1);
                    // Nodes are in the order in which they run.
                    if let ("Identity", [input], [output]) = (node.kind, &*node.inputs, &*node.outputs) {
                        copied.insert(*output, source(&copied, input));
                    } else {
                        for input in &node.inputs {
                            users.entry(source(&copied, input)).or_default().push(at);
                        }
                    }
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
        Some(Self { parts, nodes, initializers, makers, uses, copied, users, output, output_place })
    }

    /// The graph's message.
    fn with(&self, changes: &Changes) -> Vec<u8> {
        let mut message = Vec::new();
        for (at, part) in self.parts.iter().enumerate() {
            message.extend_from_slice(changes.get(&at).map_or(part.whole, Vec::as_slice));
        }
        message
    }

    /// The value of which `name` is a copy, or itself.
    pub(crate) fn source(&self, name: &'a str) -> &'a str {
        source(&self.copied, name)
    }

    /// The places and the nodes that take the value or a copy of it, `Identity` left out; one that takes it twice is told twice.
    pub(crate) fn users(&self, name: &'a str) -> impl Iterator<Item = (usize, &Node<'a>)> {
        let places = self.users.get(self.source(name)).into_iter().flatten();
        places.map(|&at| (at, &self.nodes[&at]))
    }

    /// The place and the node that makes the value `name`, and nothing else.
    pub(crate) fn maker(&self, name: &str) -> Option<(usize, &Node<'a>)> {
        let &at = self.makers.get(name)?;
        let node = self.nodes.get(&at)?;
        (node.outputs == [name]).then_some((at, node))
    }

    /// Whether the value is used once.
    pub(crate) fn is_used_once(&self, name: &str) -> bool {
        self.uses.get(name) == Some(&1)
    }

    /// The node of `kind` that makes the value `name`, which is used once; it and the `Identity` nodes on the way to it are cut.
    pub(crate) fn take_last(&self, mut name: &'a str, kind: &str, cut: &mut Changes) -> Option<&Node<'a>> {
        loop {
            if !self.is_used_once(name) {
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

    /// The type and the dimensions of a constant.
    pub(crate) fn shape(&self, name: &str) -> Option<(u64, Vec<u64>)> {
        let parts = fields(self.parts[*self.initializers.get(name)?].bytes?)?;
        let kind = parts.iter().find(|part| part.number == tensor::TYPE)?.integer?;
        Some((kind, integers(&parts, tensor::DIMENSIONS)?))
    }

    /// A constant of f32.
    pub(crate) fn constant(&self, name: &str) -> Option<Tensor> {
        Tensor::read(self.parts[*self.initializers.get(name)?].bytes?, Kind::F32)
    }

    /// A constant of this type that is used once; it is cut.
    pub(crate) fn take_constant(&self, name: &str, kind: Kind, cut: &mut Changes) -> Option<Tensor> {
        if !self.is_used_once(name) {
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

fn source<'a>(copied: &HashMap<&'a str, &'a str>, name: &'a str) -> &'a str {
    copied.get(name).copied().unwrap_or(name)
}

/// Types of numbers, as the file has them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    F32 = 1,
    U8 = 2,
    I8 = 3,
}

/// A tensor, and its values as f32.
pub(crate) struct Tensor {
    pub(crate) dimensions: Vec<u64>,
    pub(crate) values: Vec<f32>,
}

impl Tensor {
    fn read(message: &[u8], wanted: Kind) -> Option<Self> {
        let (mut kind, mut bytes, parts) = (None, None, fields(message)?);
        for field in &parts {
            match (field.number, field.bytes) {
                (tensor::TYPE, _) => kind = field.integer,
                (tensor::RAW | tensor::FLOATS, Some(values)) => bytes = Some(values),
                (tensor::FLOATS, None) => return None,
                _ => {}
            }
        }
        let dimensions = integers(&parts, tensor::DIMENSIONS)?;
        let bytes = bytes.filter(|_| kind == Some(wanted as u64))?;
        let values: Vec<f32> = match wanted {
            Kind::U8 => bytes.iter().map(|&byte| f32::from(byte)).collect(),
            Kind::I8 => bytes.iter().map(|&byte| f32::from(byte.cast_signed())).collect(),
            Kind::F32 => {
                let (values, rest) = bytes.as_chunks();
                rest.is_empty().then(|| values.iter().map(|&value| f32::from_le_bytes(value)).collect())?
            }
        };
        let size = dimensions.iter().try_fold(1, |size: u64, &side| size.checked_mul(side))?;
        (size == values.len() as u64).then_some(Self { dimensions, values })
    }
}

/// The message of a model's graph.
#[cfg(test)]
pub(crate) fn graph_of(model: &[u8]) -> Option<&[u8]> {
    fields(model)?.into_iter().find(|part| part.number == model::GRAPH)?.bytes
}

/// Fields that are not in the file: of a graph, and one of the model.
pub(crate) mod new {
    use super::{Kind, attribute, domain, graph, model, node, tensor, value, write, write_integer};

    /// Of the model: that nodes are of this domain, in its first version.
    pub(crate) fn domain(name: &str) -> Vec<u8> {
        let mut message = Vec::new();
        write(&mut message, domain::NAME, name.as_bytes());
        write_integer(&mut message, domain::VERSION, 1);
        field(model::DOMAIN, &message)
    }

    /// A node of ONNX's operators, with one output.
    pub(crate) fn node(kind: &str, inputs: &[&str], output: &str, attributes: &[&[u8]]) -> Vec<u8> {
        node_of("", kind, inputs, output, attributes)
    }

    /// A node of this domain's operators, with one output.
    pub(crate) fn node_of(domain: &str, kind: &str, inputs: &[&str], output: &str, attributes: &[&[u8]]) -> Vec<u8> {
        let mut message = Vec::new();
        for input in inputs {
            write(&mut message, node::INPUT, input.as_bytes());
        }
        write(&mut message, node::OUTPUT, output.as_bytes());
        // By its name a profile tells how long it ran.
        write(&mut message, node::NAME, output.as_bytes());
        write(&mut message, node::KIND, kind.as_bytes());
        for attribute in attributes {
            write(&mut message, node::ATTRIBUTE, attribute);
        }
        write(&mut message, node::DOMAIN, domain.as_bytes());
        field(graph::NODE, &message)
    }

    /// A node's attribute.
    pub(crate) fn integer(name: &str, value: u64) -> Vec<u8> {
        attribute_of(name, attribute::IS_INTEGER, attribute::INTEGER, &[value])
    }

    /// A node's attribute.
    pub(crate) fn integers(name: &str, values: &[u64]) -> Vec<u8> {
        attribute_of(name, attribute::IS_INTEGERS, attribute::INTEGERS, values)
    }

    /// A node's attribute.
    pub(crate) fn text(name: &str, value: &str) -> Vec<u8> {
        let mut message = attribute_of(name, attribute::IS_TEXT, attribute::INTEGER, &[]);
        write(&mut message, attribute::TEXT, value.as_bytes());
        message
    }

    fn attribute_of(name: &str, kind: u64, number: u64, values: &[u64]) -> Vec<u8> {
        let mut message = Vec::new();
        write(&mut message, attribute::NAME, name.as_bytes());
        for &value in values {
            write_integer(&mut message, number, value);
        }
        write_integer(&mut message, attribute::TYPE, kind);
        message
    }

    /// A constant; `bytes` are its numbers, little-endian.
    pub(crate) fn constant(name: &str, kind: Kind, dimensions: &[u64], bytes: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        for &side in dimensions {
            write_integer(&mut message, tensor::DIMENSIONS, side);
        }
        write_integer(&mut message, tensor::TYPE, kind as u64);
        write(&mut message, tensor::NAME, name.as_bytes());
        write(&mut message, tensor::RAW, bytes);
        field(graph::INITIALIZER, &message)
    }

    /// The graph's output: a tensor of f32 with three dimensions, all free.
    pub(crate) fn output(name: &str) -> Vec<u8> {
        field(graph::OUTPUT, &value_of_f32(name))
    }

    /// What says that the value `name` is a tensor of f32 with three dimensions, all free.
    fn value_of_f32(name: &str) -> Vec<u8> {
        let (mut shape, mut tensor, mut kind, mut value) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        (0..3).for_each(|_| write(&mut shape, value::SHAPE_DIMENSION, &[]));
        write_integer(&mut tensor, value::TENSOR_ELEMENT, Kind::F32 as u64);
        write(&mut tensor, value::TENSOR_SHAPE, &shape);
        write(&mut kind, value::TYPE_TENSOR, &tensor);
        write(&mut value, value::NAME, name.as_bytes());
        write(&mut value, value::TYPE, &kind);
        value
    }

    fn field(number: u64, message: &[u8]) -> Vec<u8> {
        let mut field = Vec::new();
        write(&mut field, number, message);
        field
    }

    /// A model with this graph, its input and output of three dimensions.
    #[cfg(test)]
    pub(crate) fn model(graph: &[Vec<u8>], input: &str, output_name: &str) -> Vec<u8> {
        let mut message = graph.concat();
        write(&mut message, graph::INPUT, &value_of_f32(input));
        message.extend(output(output_name));
        model_of(&message)
    }

    /// A model with this graph's message.
    #[cfg(test)]
    pub(crate) fn model_of(graph: &[u8]) -> Vec<u8> {
        field(model::GRAPH, graph)
    }
}
