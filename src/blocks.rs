//! Networks as ONNX Runtime optimised them for this processor, changed once more: what lies between its convolutions stays in their blocks.
//!
//! Its convolutions have the numbers of a map in blocks of 8 or 16 channels (see [`crate::operators`]). Before an operator that is not made for
//! that it puts the map in order (`ReorderOutput`), and after it in blocks again (`ReorderInput`), each a pass over all of it. Most operators in
//! between do not care for the order, and for two that do there are own ones: `Gate`, a map times a number a channel, and `Mean`, of each channel;
//! and `Gelu`, of which ONNX Runtime's is slower.
//!
//! Its convolutions of 8-bit integers have all channels of a pixel side by side, to which and from which there are `Transpose`s of maps in order. The
//! own ones go between that and the blocks in one pass, and from integers to integers where Gelu lies between two.
//!
//! What goes number by number is then one node, see [`crate::chains`].
//!
//! Every ordered value whose blocks are known has a twin, the same in blocks. Where all that an operator takes has twins, it works on those,
//! and the result is a twin; what takes it in blocks takes the twin; and only what somebody still takes in order is put in order.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::onnx::{Changes, Graph, Kind, Node, new, with_changes};
use crate::rewrite::name;
use crate::tiles::Products;
use crate::{chains, tiled};

/// The domain of the own operators.
pub const DOMAIN: &str = "threadsafe_ocr";
/// The own operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// [`crate::operators::gelu`].
    Gelu,
    /// [`crate::operators::gate`] of a map in blocks and gates, N x channels x 1 x 1.
    Gate,
    /// [`crate::operators::mean`] of a map in blocks, which gives N x channels x 1 x 1.
    Mean,
    /// [`crate::operators::quantized_gelu`] of integers, their scale and zero, and those of the result.
    QuantizedGelu,
    /// [`crate::operators::quantize`] of a map in blocks, scale and zero, which gives N x height x width x channels.
    Quantize,
    /// [`crate::operators::dequantize`], the way back.
    Dequantize,
    /// The same of two such maps, each with its scale and zero, whose sum it is.
    DequantizedSum,
    /// [`crate::operators::chain`] of any values and [`Step`](crate::operators::Step)s, N x 3.
    Chain,
    /// [`crate::convolution::Convolution`] of a map in blocks, [`tiles`](crate::tiles::tiles), biases and [`Plan`](crate::convolution::Plan).
    Convolution,
    /// The same, and a map of the result's shape that is added.
    ConvolutionSum,
}

impl Own {
    /// By their numbers.
    pub const ALL: [Self; 10] = [
        Self::Gelu,
        Self::Gate,
        Self::Mean,
        Self::QuantizedGelu,
        Self::Quantize,
        Self::Dequantize,
        Self::DequantizedSum,
        Self::Chain,
        Self::Convolution,
        Self::ConvolutionSum,
    ];

    /// Its name in a file, and its inputs: `f` of f32, `i` of 8-bit integers.
    #[must_use]
    pub fn signature(self) -> (&'static str, &'static str) {
        match self {
            Self::Gelu => ("Gelu", "f"),
            Self::Gate => ("Gate", "ff"),
            Self::Mean => ("Mean", "f"),
            Self::QuantizedGelu => ("QuantizedGelu", "ififi"),
            Self::Quantize => ("Quantize", "ffi"),
            Self::Dequantize => ("Dequantize", "ifi"),
            Self::DequantizedSum => ("DequantizedSum", "ifiifi"),
            Self::Chain => ("Chain", "ff"),
            Self::Convolution => ("Convolution", "ffff"),
            Self::ConvolutionSum => ("ConvolutionSum", "fffff"),
        }
    }
}

/// From channels last to order.
const TO_ORDER: &[u64] = &[0, 3, 1, 2];

/// ONNX Runtime's operators in blocks.
pub(crate) const BLOCKED: &str = "com.microsoft.nchwc";

/// An optimised network with own operators, for convolutions that have `block` channels in a block; these are
/// [tiled](crate::convolution) too, where they can be and it is told how. `None` where nothing changes, or it is no model.
#[must_use]
pub fn with_own_operators(optimised: Vec<u8>, block: usize, tiled: Option<Products>) -> Option<Vec<u8>> {
    let in_blocks = |graph: &Graph, changes: &mut Changes| {
        let mut walk = Walk::new(graph, block);
        for (&at, node) in &graph.nodes {
            walk.look_at(at, node);
        }
        walk.carry_out(changes);
    };
    let (mut model, mut is_changed) = (optimised, false);
    let mut change = |change: &dyn Fn(&Graph, &mut Changes)| {
        if let Some((changed, ())) = with_changes(&model, change) {
            (model, is_changed) = (changed, true);
        }
    };
    change(&in_blocks);
    change(&chains::join);
    if let Some(products) = tiled {
        change(&|graph: &Graph, changes: &mut Changes| tiled::on_tiles(graph, changes, products));
    }
    model.extend(new::domain(DOMAIN));
    is_changed.then_some(model)
}

/// What becomes of a node.
enum Plan {
    /// It does nothing any more.
    Gone,
    /// It stays where somebody takes its output as it is, in order.
    Order,
    /// Another one makes its output.
    Replaced(Operator),
    /// Another one makes the output's twin.
    Twin(Operator),
    /// Another one makes the output's integers with channels last.
    Last(Operator),
}

struct Operator {
    domain: String,
    kind: String,
    inputs: Vec<String>,
    attributes: Vec<Vec<u8>>,
}

/// The same in another order: numbers in blocks, or integers with channels last, N x height x width x channels.
#[derive(Clone)]
struct Twin {
    name: String,
    channels: usize,
}

/// What integers with channels last stand for.
#[derive(Clone)]
struct Dequantized {
    integers: Twin,
    scale: String,
    zero: String,
}

struct Walk<'g, 'a> {
    graph: &'g Graph<'a>,
    block: usize,
    plans: BTreeMap<usize, Plan>,
    /// By the names of the values in order.
    twins: HashMap<&'a str, Twin>,
    /// Values in blocks, or integers with channels last, that are other ones now.
    same: HashMap<&'a str, String>,
    /// By the names of the integers in order.
    last: HashMap<&'a str, Twin>,
    /// By the names of the numbers in order.
    dequantized: HashMap<&'a str, Dequantized>,
    /// Values of one number a channel, which are the same in blocks and in order where the channels fill blocks.
    pooled: HashSet<&'a str>,
    has_integers: bool,
}

impl<'g, 'a> Walk<'g, 'a> {
    fn new(graph: &'g Graph<'a>, block: usize) -> Self {
        let (plans, twins, same, pooled) = (BTreeMap::new(), HashMap::new(), HashMap::new(), HashSet::new());
        let has_integers = graph.nodes.values().any(quantizes);
        Self {
            graph,
            block,
            plans,
            twins,
            same,
            last: HashMap::new(),
            dequantized: HashMap::new(),
            pooled,
            has_integers,
        }
    }

    /// Nodes are looked at in the order in which they run.
    fn look_at(&mut self, at: usize, node: &Node<'a>) {
        let (&[first, ..], &[output]) = (&*node.inputs, &*node.outputs) else { return };
        if self.is_pooled(node) {
            self.pooled.insert(output);
        }
        let plan = match (node.foreign, node.kind) {
            (("com.microsoft", "Gelu"), _) => self.gelu(node, first, output),
            ((BLOCKED, "ReorderOutput"), _) => self.order(node, first, output),
            ((BLOCKED, "ReorderInput"), _) if has_channels_first(node) => self.in_blocks(first, output),
            // A maximum over single numbers.
            ((BLOCKED, "MaxPool"), _)
                if is(node, "kernel_shape", 1) && is(node, "strides", 1) && is(node, "pads", 0) =>
            {
                self.same.insert(output, self.current(first));
                Some(Plan::Gone)
            }
            // Of integers each pass gives the same bits as its nodes did; a mean that is more exact would round some of them to the other side.
            (_, "ReduceMean" | "GlobalAveragePool")
                if node.inputs.len() == 1 && self.pooled.contains(output) && !self.has_integers =>
            {
                self.twin(first).map(|twin| Plan::Replaced(own(Own::Mean, vec![twin.name])))
            }
            (_, "Mul") => self.gate(node, output).or_else(|| self.each_number(node, output)),
            (_, "QuantizeLinear") => self.quantized_gelu(node, first).or_else(|| self.quantize(node, first, output)),
            (_, "DequantizeLinear") => self.dequantize(node, first, output),
            (_, "Transpose") => self.transpose(node, first, output),
            (_, "Add") => self.dequantized_sum(node, output).or_else(|| self.each_number(node, output)),
            (_, "Div" | "Clip" | "Relu" | "HardSigmoid") => self.each_number(node, output),
            (_, "Concat") if node.integer("axis") == Some(1) => self.side_by_side(node, output),
            (_, "Resize") => self.upsample(node, output),
            _ => None,
        };
        if let Some(plan) = plan {
            self.plans.insert(at, plan);
        }
    }

    /// Whether it gives one number a channel.
    fn is_pooled(&self, node: &Node<'a>) -> bool {
        let pools = match (node.foreign, node.kind) {
            (_, "GlobalAveragePool" | "GlobalMaxPool") | ((BLOCKED, "GlobalAveragePool" | "GlobalMaxPool"), _) => {
                return true;
            }
            // Later versions have the axes as an input, which is not looked at: `Gate` refuses other shapes.
            (_, "ReduceMean" | "ReduceMax") => {
                let axes = node.integers("axes");
                return (node.inputs.len() == 2 || axes.is_some_and(|axes| axes == [2, 3]))
                    && node.integer("keepdims").is_none_or(|keeps| keeps == 1);
            }
            ((BLOCKED, "Conv"), _) => is(node, "kernel_shape", 1) && is(node, "pads", 0),
            ((BLOCKED, "ReorderInput" | "ReorderOutput"), _) => has_channels_first(node),
            (_, "Add" | "Mul" | "Div" | "Clip" | "Relu" | "HardSigmoid") => {
                node.inputs.iter().all(|input| self.pooled.contains(input) || self.is_one_number(input))
            }
            _ => false,
        };
        pools && self.pooled.contains(node.inputs[0])
    }

    /// A constant that is the same for all numbers, or an input that is left out.
    fn is_one_number(&self, name: &str) -> bool {
        let is_one = |(_, sides): (u64, Vec<u64>)| sides.len() <= 4 && sides.iter().all(|&side| side == 1);
        name.is_empty() || self.graph.shape(name).is_some_and(is_one)
    }

    fn twin(&self, ordered: &str) -> Option<Twin> {
        self.twins.get(ordered).cloned()
    }

    /// What a value in blocks is now.
    fn current(&self, name: &str) -> String {
        self.same.get(name).cloned().unwrap_or_else(|| name.to_owned())
    }

    /// A plan for the twin of `output`.
    fn makes(&mut self, output: &'a str, channels: usize, operator: Operator) -> Plan {
        self.twins.insert(output, Twin { name: name(output, "blocked"), channels });
        Plan::Twin(operator)
    }

    fn gelu(&mut self, node: &Node<'a>, value: &'a str, output: &'a str) -> Option<Plan> {
        if let Some(Twin { name, channels }) = self.twin(value) {
            return Some(self.makes(output, channels, own(Own::Gelu, vec![name])));
        }
        (node.inputs.len() == 1).then(|| Plan::Replaced(own(Own::Gelu, vec![self.current(value)])))
    }

    fn order(&mut self, node: &Node<'a>, blocked: &'a str, output: &'a str) -> Option<Plan> {
        let channels = usize::try_from(node.integer("channels")?).ok()?;
        if !has_channels_first(node) || !channels.is_multiple_of(self.block) || self.pooled.contains(output) {
            return None;
        }
        self.twins.insert(output, Twin { name: self.current(blocked), channels });
        Some(Plan::Order)
    }

    /// What is put in blocks.
    fn in_blocks(&mut self, ordered: &'a str, output: &'a str) -> Option<Plan> {
        if let Some(twin) = self.twin(ordered) {
            self.same.insert(output, twin.name);
            return Some(Plan::Gone);
        }
        let Dequantized { integers, scale, zero } = self.dequantized.get(ordered)?.clone();
        Some(Plan::Replaced(own(Own::Dequantize, vec![integers.name, scale, zero])))
    }

    /// Scale and zero of a node's integers, where they are one number each, and the integers have no sign.
    fn scale(&self, node: &Node<'a>) -> Option<(String, String)> {
        let &[_, scale, zero] = &*node.inputs else { return None };
        let is_one = |name, wanted| {
            self.is_one_number(name) && self.graph.shape(name).is_some_and(|(kind, _)| kind == wanted as u64)
        };
        (is_one(scale, Kind::F32) && is_one(zero, Kind::U8)).then(|| (scale.to_owned(), zero.to_owned()))
    }

    /// Integers made numbers, their Gelu, and that made integers.
    fn quantized_gelu(&mut self, node: &Node<'a>, value: &'a str) -> Option<Plan> {
        let before = |value, wanted: (&str, &str)| {
            let (at, maker) = self.graph.maker(value).filter(|_| self.graph.is_used_once(value))?;
            (maker.operator() == wanted).then_some((at, maker))
        };
        let (gelu_at, gelu) = before(value, ("com.microsoft", "Gelu"))?;
        let (numbers_at, numbers) = before(gelu.inputs.first()?, ("", "DequantizeLinear"))?;
        let ((scale, zero), (to_scale, to_zero)) = (self.scale(numbers)?, self.scale(node)?);
        let &integers = numbers.inputs.first().filter(|integers| !self.last.contains_key(*integers))?;
        self.plans.insert(gelu_at, Plan::Gone);
        self.plans.insert(numbers_at, Plan::Gone);
        Some(Plan::Replaced(own(Own::QuantizedGelu, vec![self.current(integers), scale, zero, to_scale, to_zero])))
    }

    fn quantize(&mut self, node: &Node<'a>, value: &'a str, output: &'a str) -> Option<Plan> {
        let (scale, zero) = self.scale(node)?;
        let Twin { name: twin, channels } = self.twin(value)?;
        self.last.insert(output, Twin { name: name(output, "last"), channels });
        Some(Plan::Last(own(Own::Quantize, vec![twin, scale, zero])))
    }

    fn dequantize(&mut self, node: &Node<'a>, value: &'a str, output: &'a str) -> Option<Plan> {
        let (scale, zero) = self.scale(node)?;
        let integers = self.last.get(value)?.clone();
        self.dequantized.insert(output, Dequantized { integers, scale, zero });
        Some(Plan::Order)
    }

    /// To channels last, or from there.
    fn transpose(&mut self, node: &Node<'a>, value: &'a str, output: &'a str) -> Option<Plan> {
        match &*node.integers("perm")? {
            [0, 2, 3, 1] => {
                // Nodes with several outputs take what they took.
                let mut users = self.graph.users(output);
                if output == self.graph.output || users.any(|(_, user)| user.outputs.len() != 1) {
                    return None;
                }
                self.same.insert(output, self.last.get(value)?.name.clone());
                Some(Plan::Gone)
            }
            TO_ORDER => {
                let (_, convolution) = self.graph.maker(value)?;
                let (("com.microsoft", "QLinearConv"), Some(1)) =
                    (convolution.foreign, convolution.integer("channels_last"))
                else {
                    return None;
                };
                let (_, sides) = self.graph.shape(convolution.inputs.get(3)?)?;
                let channels =
                    usize::try_from(*sides.first()?).ok().filter(|channels| channels.is_multiple_of(self.block))?;
                self.last.insert(output, Twin { name: self.current(value), channels });
                Some(Plan::Order)
            }
            _ => None,
        }
    }

    /// The sum of what two maps of integers stand for.
    fn dequantized_sum(&mut self, node: &Node<'a>, output: &'a str) -> Option<Plan> {
        let &[a, b] = &*node.inputs else { return None };
        let (a, b) = (self.dequantized.get(a)?.clone(), self.dequantized.get(b)?.clone());
        let channels = a.integers.channels;
        let inputs = vec![a.integers.name, a.scale, a.zero, b.integers.name, b.scale, b.zero];
        (channels == b.integers.channels).then(|| self.makes(output, channels, own(Own::DequantizedSum, inputs)))
    }

    /// A map times one number a channel.
    fn gate(&mut self, node: &Node<'a>, output: &'a str) -> Option<Plan> {
        let &[a, b] = &*node.inputs else { return None };
        let (map, gates) = if self.pooled.contains(b) { (a, b) } else { (b, a) };
        let Twin { name, channels } = self.twin(map).filter(|_| self.pooled.contains(gates))?;
        Some(self.makes(output, channels, own(Own::Gate, vec![name, gates.to_owned()])))
    }

    /// What goes number by number, of maps of one shape and of single constants.
    fn each_number(&mut self, node: &Node<'a>, output: &'a str) -> Option<Plan> {
        let (mut inputs, mut channels) = (Vec::new(), None);
        for &input in &node.inputs {
            if let Some(twin) = self.twins.get(input) {
                if channels.is_some_and(|channels| channels != twin.channels) {
                    return None;
                }
                channels = Some(twin.channels);
                inputs.push(twin.name.clone());
            } else if self.is_one_number(input) {
                inputs.push(input.to_owned());
            } else {
                return None;
            }
        }
        Some(self.makes(output, channels?, same_kind(node, inputs)))
    }

    /// Whole blocks follow each other.
    fn side_by_side(&mut self, node: &Node<'a>, output: &'a str) -> Option<Plan> {
        let twins: Option<Vec<_>> = node.inputs.iter().map(|&input| self.twins.get(input)).collect();
        let twins = twins?;
        let channels = twins.iter().map(|twin| twin.channels).sum();
        let inputs = twins.iter().map(|twin| twin.name.clone()).collect();
        Some(self.makes(output, channels, same_kind(node, inputs)))
    }

    /// Pixels made several.
    fn upsample(&mut self, node: &Node<'a>, output: &'a str) -> Option<Plan> {
        let &[map, _, scales] = &*node.inputs else { return None };
        let scales = self.graph.constant(scales)?.values;
        let is = |attribute, wanted| node.text(attribute) == Some(wanted);
        let is_plain = is("mode", "nearest")
            && is("coordinate_transformation_mode", "asymmetric")
            && is("nearest_mode", "floor")
            && node.integers("axes").is_none();
        let times: Vec<u64> =
            scales.iter().filter(|scale| scale.fract() == 0.0 && **scale >= 1.0).map(|&scale| scale as u64).collect();
        let (true, [1, 1, _, _]) = (is_plain && scales.len() == 4, &*times) else { return None };
        let Twin { name, channels } = self.twin(map)?;
        let attributes = vec![
            new::integers("scales", &times),
            new::text("mode", "nearest"),
            new::text("coordinate_transformation_mode", "asymmetric"),
        ];
        let operator = Operator { domain: BLOCKED.into(), kind: "Upsample".into(), inputs: vec![name], attributes };
        Some(self.makes(output, channels, operator))
    }

    fn carry_out(&self, changes: &mut Changes) {
        let taken = self.taken_in_order();
        for (&at, node) in &self.graph.nodes {
            // ONNX Runtime's operators in blocks, all that have plans and all that take what is gone have one output.
            let &[output] = &*node.outputs else { continue };
            let is_taken = taken.contains(output);
            let fields = match self.plans.get(&at) {
                Some(Plan::Gone) => Vec::new(),
                Some(Plan::Order) if !is_taken => Vec::new(),
                Some(Plan::Replaced(operator)) => operator.fields(output),
                Some(Plan::Twin(operator)) => {
                    let twin = &self.twins[output];
                    let mut fields = operator.fields(&twin.name);
                    if is_taken {
                        let channels = new::integer("channels", twin.channels as u64);
                        fields.extend(new::node_of(BLOCKED, "ReorderOutput", &[&twin.name], output, &[&channels]));
                    }
                    fields
                }
                Some(Plan::Last(operator)) => {
                    let last = &self.last[output].name;
                    let mut fields = operator.fields(last);
                    if is_taken {
                        fields.extend(new::node("Transpose", &[last], output, &[&new::integers("perm", TO_ORDER)]));
                    }
                    fields
                }
                _ if node.inputs.iter().any(|input| self.same.contains_key(input)) => {
                    let inputs = node.inputs.iter().map(|input| self.current(input)).collect();
                    same_kind(node, inputs).fields(output)
                }
                _ => continue,
            };
            changes.insert(at, fields);
        }
    }

    /// Values that somebody takes as they are, and not their twins.
    fn taken_in_order(&self) -> HashSet<&str> {
        let mut taken = HashSet::from([self.graph.output]);
        // Who takes a value comes after who makes it.
        for (at, node) in self.graph.nodes.iter().rev() {
            match self.plans.get(at) {
                Some(Plan::Gone) => {}
                Some(Plan::Replaced(operator) | Plan::Twin(operator) | Plan::Last(operator)) => {
                    taken.extend(operator.inputs.iter().map(String::as_str));
                }
                Some(Plan::Order) if !node.outputs.iter().any(|output| taken.contains(output)) => {}
                _ => taken.extend(&node.inputs),
            }
        }
        taken
    }
}

impl Operator {
    fn fields(&self, output: &str) -> Vec<u8> {
        let inputs: Vec<&str> = self.inputs.iter().map(String::as_str).collect();
        let attributes: Vec<&[u8]> = self.attributes.iter().map(Vec::as_slice).collect();
        new::node_of(&self.domain, &self.kind, &inputs, output, &attributes)
    }
}

fn own(kind: Own, inputs: Vec<String>) -> Operator {
    Operator { domain: DOMAIN.into(), kind: kind.signature().0.to_owned(), inputs, attributes: Vec::new() }
}

/// Whether the node gives integers that numbers are rounded to.
pub(crate) fn quantizes(node: &Node) -> bool {
    node.operator().1.contains("Quantize")
}

/// Of a node that puts a map in order or in blocks: from or to N x channels x height x width.
fn has_channels_first(node: &Node) -> bool {
    node.integer("channels_last").is_none_or(|last| last == 0)
}

/// The node's operator, of other inputs.
fn same_kind(node: &Node, inputs: Vec<String>) -> Operator {
    let (domain, kind) = node.operator();
    let attributes = node.attributes.iter().map(|attribute| attribute.to_vec()).collect();
    Operator { domain: domain.to_owned(), kind: kind.to_owned(), inputs, attributes }
}

/// Whether all numbers of the attribute are this one, as where it is missing.
pub(crate) fn is(node: &Node, attribute: &str, number: u64) -> bool {
    node.integers(attribute).is_none_or(|numbers| numbers.iter().all(|&found| found == number))
}

/// For tests: a node of ONNX's operators.
#[cfg(test)]
pub(crate) fn node(kind: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    new::node(kind, inputs, output, &[])
}

/// For tests: a constant.
#[cfg(test)]
pub(crate) fn number(name: &str, value: f32) -> Vec<u8> {
    new::constant(name, Kind::F32, &[], &value.to_le_bytes())
}

/// For tests: a model's nodes as `kind(inputs) output`, own ones with a star, those in blocks with a plus. Values that are not in the file are those
/// that they come from with a stroke.
#[cfg(test)]
pub(crate) fn told(model: &[u8]) -> Vec<String> {
    let mut told = Vec::new();
    let _ = with_changes(model, |graph, _| {
        for node in graph.nodes.values() {
            let (mark, kind) = match node.foreign {
                ("", _) => ("", node.kind),
                (DOMAIN, kind) => ("*", kind),
                (_, kind) => ("+", kind),
            };
            let line = format!("{mark}{kind}({}) {}", node.inputs.join(" "), node.outputs.join(" "));
            let parts = ["\u{1f}blocked", "\u{1f}last", "\u{1f}steps"];
            told.push(parts.iter().fold(line, |line, part| line.replace(part, "'")));
        }
    });
    told
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn blocked(kind: &str, inputs: &[&str], output: &str) -> Vec<u8> {
        new::node_of(BLOCKED, kind, inputs, output, &[])
    }

    fn ordered(blocked_value: &str, output: &str, channels: u64) -> Vec<u8> {
        new::node_of(BLOCKED, "ReorderOutput", &[blocked_value], output, &[&new::integer("channels", channels)])
    }

    /// The nodes after it, as [`told`].
    fn changed(graph: &[Vec<u8>]) -> Option<Vec<String>> {
        with_own_operators(new::model(graph, "pixels", "result"), 8, None).map(|model| told(&model))
    }

    #[test]
    fn own_operators_are_found_by_their_numbers() {
        for (number, own) in Own::ALL.into_iter().enumerate() {
            assert_eq!(own as usize, number);
        }
    }

    #[test]
    fn a_gated_map_stays_in_blocks_between_convolutions() {
        let graph = [
            blocked("Conv", &["pixels", "w"], "map"),
            ordered("map", "a", 24),
            new::node("ReduceMean", &["a"], "mean", &[&new::integers("axes", &[2, 3])]),
            node("HardSigmoid", &["mean"], "gates"),
            number("one", 1.0),
            node("Add", &["gates", "one"], "more"),
            node("Mul", &["a", "more"], "b"),
            blocked("ReorderInput", &["b"], "c"),
            new::node_of(BLOCKED, "MaxPool", &["c"], "d", &[&new::integers("kernel_shape", &[1, 1])]),
            blocked("Conv", &["d", "w"], "result"),
        ];
        let wanted = [
            "+Conv(pixels w) map",
            "*Mean(map) mean",
            "*Chain(mean more') more",
            "*Gate(map more) b'",
            "+Conv(b' w) result",
        ];
        assert_eq!(changed(&graph).unwrap(), wanted);
    }

    #[test]
    fn a_map_is_not_multiplied_by_what_is_one_number_a_channel_as_by_a_map() {
        let means = [
            node("ReduceMean", &["a", "axes"], "mean"),
            node("GlobalMaxPool", &["a"], "mean"),
            new::node("ReduceMax", &["a"], "mean", &[&new::integers("axes", &[2, 3])]),
        ];
        for mean in means {
            let graph = [
                blocked("Conv", &["pixels", "w"], "map"),
                ordered("map", "a", 16),
                mean,
                blocked("ReorderInput", &["mean"], "b"),
                blocked("Conv", &["b", "w"], "c"),
                ordered("c", "gates", 16),
                node("Mul", &["a", "gates"], "d"),
                blocked("ReorderInput", &["d"], "e"),
                blocked("Conv", &["e", "w"], "result"),
            ];
            let told = changed(&graph).unwrap();
            assert_eq!(told[told.len() - 2..], ["*Gate(map gates) d'", "+Conv(d' w) result"], "{told:?}");
        }
    }

    #[test]
    fn maps_are_added_enlarged_and_put_side_by_side_in_blocks() {
        let nearest = [
            new::text("mode", "nearest"),
            new::text("coordinate_transformation_mode", "asymmetric"),
            new::text("nearest_mode", "floor"),
        ];
        let nearest: Vec<&[u8]> = nearest.iter().map(Vec::as_slice).collect();
        let scales: Vec<u8> = [1.0_f32, 1.0, 2.0, 2.0].iter().flat_map(|scale| scale.to_le_bytes()).collect();
        let graph = [
            blocked("Conv", &["pixels", "w"], "small"),
            blocked("Conv", &["pixels", "v"], "large"),
            ordered("small", "a", 16),
            ordered("large", "b", 16),
            new::constant("scales", Kind::F32, &[4], &scales),
            new::node("Resize", &["a", "", "scales"], "c", &nearest),
            node("Add", &["b", "c"], "d"),
            new::node("Concat", &["d", "b"], "e", &[&new::integer("axis", 1)]),
            blocked("ReorderInput", &["e"], "f"),
            blocked("Conv", &["f", "w"], "g"),
            new::node_of("com.microsoft", "Gelu", &["g"], "h", &[]),
            blocked("Conv", &["h", "w"], "result"),
        ];
        let wanted = [
            "+Conv(pixels w) small",
            "+Conv(pixels v) large",
            "+Upsample(small) c'",
            "Add(large c') d'",
            "Concat(d' large) e'",
            "+Conv(e' w) g",
            "*Gelu(g) h",
            "+Conv(h w) result",
        ];
        assert_eq!(changed(&graph).unwrap(), wanted);
    }

    /// A convolution of integers, from `integers` to as many channels as its weights have rows.
    fn quantized(integers: &str, output: &str) -> Vec<u8> {
        let inputs = [integers, "scale", "zero", "weights", "scales", "zeros", "scale", "zero"];
        new::node_of("com.microsoft", "QLinearConv", &inputs, output, &[&new::integer("channels_last", 1)])
    }

    fn scaled(kind: &str, value: &str, output: &str) -> Vec<u8> {
        node(kind, &[value, "scale", "zero"], output)
    }

    fn transposed(value: &str, output: &str, order: &[u64]) -> Vec<u8> {
        new::node("Transpose", &[value], output, &[&new::integers("perm", order)])
    }

    /// The nodes after one scale and zero for all, weights of 16 rows, and a map from a convolution of numbers, `map`, to one of integers, `d`, by
    /// way of `b`; then `more`. Constants of the integers' convolutions are dots.
    fn changed_of_integers(more: &[Vec<u8>]) -> Vec<String> {
        let mut graph = vec![
            number("scale", 0.5),
            new::constant("zero", Kind::U8, &[], &[7]),
            new::constant("weights", Kind::I8, &[16, 1, 1, 1], &[1; 16]),
            blocked("Conv", &["pixels", "w"], "map"),
            ordered("map", "a", 16),
            scaled("QuantizeLinear", "a", "b"),
            transposed("b", "c", &[0, 2, 3, 1]),
            quantized("c", "d"),
        ];
        graph.extend_from_slice(more);
        let constants = " scale zero weights scales zeros scale zero";
        changed(&graph).unwrap().iter().map(|line| line.replace(constants, " ...")).collect()
    }

    #[test]
    fn convolutions_of_integers_are_reached_and_left_in_one_pass() {
        let all = changed_of_integers(&[
            scaled("DequantizeLinear", "b", "residual"),
            scaled("DequantizeLinear", "d", "e"),
            new::node_of("com.microsoft", "Gelu", &["e"], "f", &[]),
            scaled("QuantizeLinear", "f", "g"),
            quantized("g", "h"),
            transposed("h", "i", TO_ORDER),
            scaled("DequantizeLinear", "i", "j"),
            node("Add", &["residual", "j"], "k"),
            blocked("ReorderInput", &["k"], "l"),
            blocked("Conv", &["l", "w"], "m"),
            quantized("h", "n"),
            transposed("n", "o", TO_ORDER),
            scaled("DequantizeLinear", "o", "p"),
            blocked("ReorderInput", &["p"], "q"),
            blocked("Conv", &["q", "m"], "result"),
        ]);
        let wanted = [
            "+Conv(pixels w) map",
            "*Quantize(map scale zero) b'",
            "+QLinearConv(b' ...) d",
            "*QuantizedGelu(d scale zero scale zero) g",
            "+QLinearConv(g ...) h",
            "*DequantizedSum(b' scale zero h scale zero) k'",
            "+Conv(k' w) m",
            "+QLinearConv(h ...) n",
            "*Dequantize(n scale zero) q",
            "+Conv(q m) result",
        ];
        assert_eq!(all, wanted);
    }

    #[test]
    fn integers_that_are_taken_in_order_too_stay_so() {
        let all = changed_of_integers(&[
            transposed("d", "e", TO_ORDER),
            scaled("DequantizeLinear", "e", "f"),
            node("Softmax", &["f"], "g"),
            node("MatMul", &["g", "b"], "result"),
        ]);
        let wanted = [
            "+Conv(pixels w) map",
            "*Quantize(map scale zero) b'",
            "Transpose(b') b",
            "+QLinearConv(b' ...) d",
            "Transpose(d) e",
            "DequantizeLinear(e scale zero) f",
            "Softmax(f) g",
            "MatMul(g b) result",
        ];
        assert_eq!(all, wanted);
    }

    #[test]
    fn integers_that_are_the_result_are_put_in_its_order() {
        let all = changed_of_integers(&[transposed("b", "result", &[0, 2, 3, 1])]);
        assert_eq!(all[all.len() - 2..], ["+QLinearConv(b' ...) d", "Transpose(b) result"]);
    }

    #[test]
    fn what_is_taken_in_order_too_is_put_in_order_after_the_last_step() {
        let graph = [
            blocked("Conv", &["pixels", "w"], "map"),
            ordered("map", "a", 8),
            number("two", 2.0),
            node("Mul", &["a", "two"], "b"),
            blocked("ReorderInput", &["b"], "c"),
            blocked("Conv", &["c", "w"], "d"),
            node("Softmax", &["b"], "e"),
            node("MatMul", &["e", "d"], "result"),
        ];
        let wanted = [
            "+Conv(pixels w) map",
            "Mul(map two) b'",
            "+ReorderOutput(b') b",
            "+Conv(b' w) d",
            "Softmax(b) e",
            "MatMul(e d) result",
        ];
        assert_eq!(changed(&graph).unwrap(), wanted);
    }

    #[test]
    fn numbers_whose_gelu_is_not_made_integers_again_stay() {
        let all = changed_of_integers(&[
            transposed("d", "e", TO_ORDER),
            scaled("DequantizeLinear", "e", "f"),
            new::node_of("com.microsoft", "Gelu", &["f"], "result", &[]),
        ]);
        assert_eq!(all[all.len() - 3..], ["Transpose(d) e", "DequantizeLinear(e scale zero) f", "*Gelu(f) result"]);
    }

    #[test]
    fn a_map_that_comes_with_channels_last_is_put_in_blocks_as_before() {
        let last = new::integer("channels_last", 1);
        let graph = [
            blocked("Conv", &["pixels", "w"], "map"),
            ordered("map", "a", 8),
            new::node_of(BLOCKED, "ReorderInput", &["a"], "b", &[&last]),
            blocked("Conv", &["b", "w"], "result"),
        ];
        assert_eq!(changed(&graph), None);
    }

    #[test]
    fn maps_that_do_not_fill_blocks_and_constants_of_several_numbers_are_left() {
        let two: Vec<u8> = [1.0_f32, 2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let tail = |value: &str| [blocked("ReorderInput", &[value], "c"), blocked("Conv", &["c", "w"], "result")];
        for (channels, constant) in [(12, number("k", 2.0)), (16, new::constant("k", Kind::F32, &[2], &two))] {
            let mut graph = vec![
                blocked("Conv", &["pixels", "w"], "map"),
                ordered("map", "a", channels),
                constant,
                node("Mul", &["a", "k"], "b"),
            ];
            graph.extend(tail("b"));
            assert_eq!(changed(&graph), None, "{channels} channels");
        }
        assert_eq!(with_own_operators(b"no model".to_vec(), 8, Some(Products::Three)), None);
    }
}
