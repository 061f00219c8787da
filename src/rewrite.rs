//! Networks as they run on a processor: equal to their files, in less time.
//!
//! A recogniser loses its last layer, which [`crate::head`] computes. The rest is for ONNX Runtime's convolutions, which have their numbers in
//! blocks of 8 or 16 channels: what cannot stay so between two of them is put in order and back, each time a pass over a large tensor. A network
//! that is made in another way is left as it is.

use crate::head::Head;
use crate::onnx::{Changes, Graph, Kind, Node, Tensor, new, with_changes};
use crate::tiles::Products;

/// A network to be loaded instead of its file.
#[derive(Debug)]
pub struct Rewritten {
    /// The ONNX file's content.
    pub model: Vec<u8>,
    /// The recogniser's last layer, which the model has no more.
    pub head: Option<Head>,
}

/// The network without its last layer and, for convolutions that have this many channels in a block, with fewer passes between them. `None`
/// where nothing changes, or the file is no model. `products` are the last layer's.
#[must_use]
pub fn rewritten(model: &[u8], block: Option<usize>, products: Products) -> Option<Rewritten> {
    let (model, head) = with_changes(model, |graph, changes| {
        let head = whole(changes, |own| cut_head(graph, products, own));
        if let Some(block) = block {
            for (&at, node) in &graph.nodes {
                match node.kind {
                    "Concat" => whole(changes, |own| split_at_pool(graph, at, node, block, own)),
                    "Add" => whole(changes, |own| add_gated_once(graph, at, node, own)),
                    "Mul" => whole(changes, |own| keep_gated_blocked(graph, at, node, own)),
                    _ => None,
                };
            }
            whole(changes, |own| upsample_last(graph, own));
        }
        head
    })?;
    Some(Rewritten { model, head })
}

/// How many channels ONNX Runtime's convolutions have in a block on this processor (`MlasNchwcGetBlockSize`); `None` elsewhere than on x86-64,
/// where they have no blocks, or it has not been measured.
#[must_use]
pub fn block() -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    return Some(if std::arch::is_x86_feature_detected!("avx512f") { 16 } else { 8 });
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// What `change` does, unless it gives up half-way, or a field has become something else already.
fn whole<T>(changes: &mut Changes, change: impl FnOnce(&mut Changes) -> Option<T>) -> Option<T> {
    let mut own = Changes::new();
    let given = change(&mut own)?;
    if own.keys().any(|at| changes.contains_key(at)) {
        return None;
    }
    changes.append(&mut own);
    Some(given)
}

/// Cuts the last layer: `Softmax(Add(MatMul(columns, weights), bias))`, over the classes of N x T x classes, with `Identity` anywhere between. The
/// weights may be `DequantizeLinear(integers, scales)`, a scale for each class.
fn cut_head(graph: &Graph, products: Products, cut: &mut Changes) -> Option<Head> {
    let softmax = graph.take_last(graph.output, "Softmax", cut)?;
    let axis = softmax.integer("axis")?;
    let [logits] = *softmax.inputs else { return None };
    let add = graph.take_last(logits, "Add", cut)?;
    let [product, bias] = *add.inputs else { return None };
    let matmul = graph.take_last(product, "MatMul", cut)?;
    let [columns, weights] = *matmul.inputs else { return None };
    let bias = graph.take_constant(bias, Kind::F32, cut)?;
    let weights = take_weights(graph, weights, cut)?;
    let ([_, classes], [biases]) = (&*weights.dimensions, &*bias.dimensions) else { return None };
    if !matches!(axis, 2 | -1) || biases != classes {
        return None;
    }
    let head = Head::new(&weights.values, &bias.values, products)?;
    cut.insert(graph.output_place, new::output(columns));
    Some(head)
}

/// The last layer's weights, which are used once; they are cut.
fn take_weights(graph: &Graph, name: &str, cut: &mut Changes) -> Option<Tensor> {
    let Some((at, node)) = graph.maker(name).filter(|(_, node)| node.kind == "DequantizeLinear") else {
        return graph.take_constant(name, Kind::F32, cut);
    };
    // Without a zero point.
    let [integers, scales] = *node.inputs else { return None };
    if !graph.is_used_once(name) || node.integer("axis") != Some(1) {
        return None;
    }
    cut.insert(at, Vec::new());
    let mut weights = graph.take_constant(integers, Kind::I8, cut)?;
    let scales = graph.take_constant(scales, Kind::F32, cut)?;
    let ([_, columns], [scaled]) = (&*weights.dimensions, &*scales.dimensions) else { return None };
    if columns != scaled || *scaled == 0 {
        return None;
    }
    for row in weights.values.chunks_exact_mut(scales.values.len()) {
        row.iter_mut().zip(&scales.values).for_each(|(value, scale)| *value *= scale);
    }
    Some(weights)
}

/// `Conv(Concat(MaxPool(a), b))` with `a = Relu(Conv(pixels))`, as detection begins, becomes two convolutions of which the second one adds the
/// first one's result, so that nothing is copied to stand side by side. The channels of `a` are filled up to whole blocks with zeros: else the
/// maximum is not taken in blocks.
fn split_at_pool(graph: &Graph, at: usize, concat: &Node, block: usize, changes: &mut Changes) -> Option<()> {
    if concat.integer("axis") != Some(1) {
        return None;
    }
    let ([pooled, other], [both]) = (&*concat.inputs, &*concat.outputs) else { return None };
    let (pool_at, pool) = graph.maker(pooled).filter(|(_, node)| node.kind == "MaxPool")?;
    let [map] = *pool.inputs else { return None };
    let (relu_at, relu) = graph.maker(map).filter(|(_, node)| node.kind == "Relu")?;
    let [of_pixels] = *relu.inputs else { return None };
    let (first_at, first) = graph.maker(of_pixels)?;
    if ![*pooled, *both, of_pixels].iter().all(|value| graph.is_used_once(value)) {
        return None;
    }
    let [pixels, ..] = *first.inputs else { return None };
    let mut first = Convolution::take(graph, first, changes)?;
    let channels = first.weights.dimensions[0] as usize;
    let more = channels.next_multiple_of(block) - channels;
    first.fill_outputs(more);
    // The file says of the old names that they have fewer channels; and whoever else takes one is missed by ONNX Runtime, not served another.
    let [new_first, new_map, new_pooled] = [of_pixels, map, pooled].map(|value| name(value, "filled"));
    changes.insert(at, Vec::new());
    changes.insert(first_at, first.fields(pixels, &new_first));
    changes.insert(relu_at, new::node("Relu", &[&new_first], &new_map, &relu.attributes));
    changes.insert(pool_at, new::node("MaxPool", &[&new_map], &new_pooled, &pool.attributes));
    for (at, user) in graph.users(map).filter(|&(at, _)| at != pool_at) {
        let mut convolution = Convolution::take(graph, user, changes)?;
        convolution.fill_inputs(more);
        changes.insert(at, convolution.fields(&new_map, user.outputs.first()?));
    }
    for (at, user) in graph.users(both) {
        let [mut left, right] = Convolution::take(graph, user, changes)?.split(channels)?;
        left.fill_inputs(more);
        let output = user.outputs.first()?;
        let [a, b] = ["left", "right"].map(|side| name(output, side));
        let sum = new::node("Add", &[&a, &b], output, &[]);
        changes.insert(at, [left.fields(&new_pooled, &a), right.fields(other, &b), sum].concat());
    }
    Some(())
}

/// A convolution with constant weights, and a bias unless another one has it.
struct Convolution<'g, 'a> {
    node: &'g Node<'a>,
    weights: Tensor,
    bias: Option<Vec<f32>>,
}

impl<'g, 'a> Convolution<'g, 'a> {
    /// `None` for another node, and where its weights or its bias are used elsewhere too; they are cut.
    fn take(graph: &Graph<'a>, node: &'g Node<'a>, cut: &mut Changes) -> Option<Self> {
        let ("Conv", [_, weights, bias]) = (node.kind, &*node.inputs) else { return None };
        let weights = graph.take_constant(weights, Kind::F32, cut)?;
        let bias = graph.take_constant(bias, Kind::F32, cut)?.values;
        let fits = matches!(*weights.dimensions, [outputs, _, _, _] if outputs == bias.len() as u64 && outputs > 0);
        let is_dense = node.integer("group").is_none_or(|groups| groups == 1);
        (fits && is_dense && !weights.values.is_empty()).then_some(Self { node, weights, bias: Some(bias) })
    }

    /// Numbers of an output channel for each input channel.
    fn kernel(&self) -> usize {
        (self.weights.dimensions[2] * self.weights.dimensions[3]) as usize
    }

    /// The same over the first channels and over the others, which has the bias.
    fn split(self, channels: usize) -> Option<[Self; 2]> {
        let inputs = self.weights.dimensions[1].checked_sub(channels as u64).filter(|&rest| rest > 0)? as usize;
        let (kernel, node) = (self.kernel(), self.node);
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for output in self.weights.values.chunks_exact((channels + inputs) * kernel) {
            let (first, others) = output.split_at(channels * kernel);
            left.extend_from_slice(first);
            right.extend_from_slice(others);
        }
        let part = |channels: usize, values, bias| {
            let mut dimensions = self.weights.dimensions.clone();
            dimensions[1] = channels as u64;
            Self { node, weights: Tensor { dimensions, values }, bias }
        };
        Some([part(channels, left, None), part(inputs, right, self.bias)])
    }

    /// Takes more channels, which count nothing.
    fn fill_inputs(&mut self, more: usize) {
        let row = self.weights.dimensions[1] as usize * self.kernel();
        let zeros = vec![0.0; more * self.kernel()];
        let rows = self.weights.values.chunks_exact(row);
        self.weights.values = rows.flat_map(|row| [row, &zeros]).flatten().copied().collect();
        self.weights.dimensions[1] += more as u64;
    }

    /// Gives more channels, of zeros.
    fn fill_outputs(&mut self, more: usize) {
        let row = self.weights.dimensions[1] as usize * self.kernel();
        self.weights.values.resize(self.weights.values.len() + more * row, 0.0);
        self.weights.dimensions[0] += more as u64;
        if let Some(bias) = &mut self.bias {
            bias.resize(bias.len() + more, 0.0);
        }
    }

    /// Its node and constants, from the value `input` to `output`.
    fn fields(&self, input: &str, output: &str) -> Vec<u8> {
        let [weights, bias] = ["weights", "bias"].map(|part| name(output, part));
        let mut fields = f32_constant(&weights, &self.weights.dimensions, &self.weights.values);
        let mut inputs = vec![input, &weights];
        if let Some(values) = &self.bias {
            fields.extend(f32_constant(&bias, &[values.len() as u64], values));
            inputs.push(&bias);
        }
        fields.extend(new::node("Conv", &inputs, output, &self.node.attributes));
        fields
    }
}

/// A name that no file has, of what is made for the value `of`.
pub(crate) fn name(of: &str, part: &str) -> String {
    format!("{of}\u{1f}{part}")
}

fn f32_constant(name: &str, shape: &[u64], values: &[f32]) -> Vec<u8> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    new::constant(name, Kind::F32, shape, &bytes)
}

/// Of a `Mul`, where it is of a map with a gate: `(map, gate)`.
fn gated<'a>(graph: &Graph<'a>, product: &Node<'a>) -> Option<(&'a str, &'a str)> {
    let [a, b] = *product.inputs else { return None };
    let is_gate = |value: &'a str, map: &'a str| {
        let maker = graph.maker(graph.source(value));
        // Of the map itself it would be the activation of that name.
        maker.is_some_and(|(_, node)| {
            node.kind == "HardSigmoid" && node.inputs.iter().all(|x| graph.source(x) != graph.source(map))
        })
    };
    if is_gate(b, a) { Some((a, b)) } else { is_gate(a, b).then_some((b, a)) }
}

/// `map + map * gate` becomes `map * (gate + 1)`, one pass over the map.
fn add_gated_once(graph: &Graph, at: usize, sum: &Node, changes: &mut Changes) -> Option<()> {
    let ([a, b], [total]) = (&*sum.inputs, &*sum.outputs) else { return None };
    let multiplied = |product, added, cut: &mut Changes| {
        let (map, gate) = gated(graph, graph.take_last(product, "Mul", cut)?)?;
        (graph.source(map) == graph.source(added)).then_some((map, gate))
    };
    let (map, gate) = whole(changes, |own| multiplied(*a, *b, own)).or_else(|| multiplied(*b, *a, changes))?;
    let [one, more] = ["one", "more"].map(|part| name(total, part));
    let parts = [
        f32_constant(&one, &[], &[1.0]),
        new::node("Add", &[gate, &one], &more, &[]),
        new::node("Mul", &[map, &more], total, &[]),
    ];
    changes.insert(at, parts.concat());
    Some(())
}

/// A gated map that a convolution takes and that is added to later: a maximum over single numbers, which leaves each as it is, brings it into
/// blocks once, for both (where its channels fill them). ONNX Runtime then adds it within the convolution before the sum; else it puts that
/// one's result in order for the sum, and the sum in blocks again.
fn keep_gated_blocked(graph: &Graph, at: usize, product: &Node, changes: &mut Changes) -> Option<()> {
    let ((map, gate), [output]) = (gated(graph, product)?, &*product.outputs) else { return None };
    let is_used_by = |kind| graph.users(output).any(|(_, user)| user.kind == kind);
    if !is_used_by("Conv") || !is_used_by("Add") {
        return None;
    }
    let ordered = name(output, "ordered");
    let parts = [
        new::node("Mul", &[map, gate], &ordered, &[]),
        new::node("MaxPool", &[&ordered], output, &[&new::integers("kernel_shape", &[1, 1])]),
    ];
    changes.insert(at, parts.concat());
    Some(())
}

/// Detection's last layers, `Sigmoid(Up(Relu(Up(map))))` to four times the size, where `Up` makes 2 x 2 numbers of each, plus a bias: the same
/// at the map's own size, with the 16 numbers as channels, which are put side by side at the end.
fn upsample_last(graph: &Graph, cut: &mut Changes) -> Option<()> {
    let sigmoid = graph.take_last(graph.output, "Sigmoid", cut)?;
    let (at, _) = graph.maker(sigmoid.outputs.first()?)?;
    let (second, relu) = take_upsampling(graph, sigmoid, cut)?;
    let (first, map) = take_upsampling(graph, graph.take_last(relu, "Relu", cut)?, cut)?;
    let (channels, between) = (first.from, first.to);
    if (second.from, second.to) != (between, 1) {
        return None;
    }
    // Of each quarter of a number its channels, and of each of those 2 x 2 pixels.
    let (width, pixels) = (4 * between, 16);
    let (mut weights, mut last_weights) = (vec![0.0; width * channels], vec![0.0; pixels * width]);
    for (row, column) in (0..4).map(|quarter| (quarter / 2, quarter % 2)) {
        for middle in 0..between {
            let place = (2 * row + column) * between + middle;
            for channel in 0..channels {
                weights[place * channels + channel] = first.weight(channel, middle, row, column);
            }
            for (lower, right) in (0..4).map(|quarter| (quarter / 2, quarter % 2)) {
                let pixel = 4 * (2 * row + lower) + 2 * column + right;
                last_weights[pixel * width + place] = second.weight(middle, 0, lower, right);
            }
        }
    }
    let (width, pixels) = (width as u64, pixels as u64);
    let [w, b, last_w, last_b, quarters, positive, logits, probabilities] =
        ["weights", "bias", "last weights", "last bias", "quarters", "positive", "logits", "probabilities"]
            .map(|part| name(graph.output, part));
    let parts = [
        f32_constant(&w, &[width, channels as u64, 1, 1], &weights),
        f32_constant(&b, &[width], &first.bias.repeat(4)),
        f32_constant(&last_w, &[pixels, width, 1, 1], &last_weights),
        f32_constant(&last_b, &[pixels], &second.bias.repeat(16)),
        new::node("Conv", &[map, &w, &b], &quarters, &[]),
        new::node("Relu", &[&quarters], &positive, &[]),
        new::node("Conv", &[&positive, &last_w, &last_b], &logits, &[]),
        new::node("Sigmoid", &[&logits], &probabilities, &[]),
        new::node("DepthToSpace", &[&probabilities], graph.output, &[&new::integer("blocksize", 4)]),
    ];
    cut.insert(at, parts.concat());
    Some(())
}

/// A transposed convolution of 2 x 2 numbers without overlap.
struct Upsampling {
    from: usize,
    to: usize,
    /// from x to x 2 x 2.
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl Upsampling {
    fn weight(&self, from: usize, to: usize, row: usize, column: usize) -> f32 {
        self.weights[((from * self.to + to) * 2 + row) * 2 + column]
    }
}

/// The transposed convolution with a bias that `user` takes, and the value it is of; they are cut.
fn take_upsampling<'a>(graph: &Graph<'a>, user: &Node<'a>, cut: &mut Changes) -> Option<(Upsampling, &'a str)> {
    let [sum] = *user.inputs else { return None };
    let add = graph.take_last(sum, "Add", cut)?;
    let [product, bias] = *add.inputs else { return None };
    let node = graph.take_last(product, "ConvTranspose", cut)?;
    let [map, weights] = *node.inputs else { return None };
    let is = |name, wanted: &[u64]| node.integers(name).is_none_or(|values| values == wanted);
    let is_plain =
        is("dilations", &[1, 1]) && is("pads", &[0; 4]) && is("output_padding", &[0; 2]) && is("output_shape", &[]);
    let doubles = node.integers("strides")? == [2, 2] && node.integer("group").is_none_or(|groups| groups == 1);
    let weights = graph.take_constant(weights, Kind::F32, cut)?;
    let bias = graph.take_constant(bias, Kind::F32, cut)?;
    let ([from, to, 2, 2], [1, biases, 1, 1]) = (&*weights.dimensions, &*bias.dimensions) else { return None };
    if !is_plain || !doubles || biases != to {
        return None;
    }
    let (from, to) = (*from as usize, *to as usize);
    Some((Upsampling { from, to, weights: weights.values, bias: bias.values }, map))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::onnx::graph_of;

    fn network(kind: &str) -> Vec<u8> {
        std::fs::read(format!("{}/models/{kind}/inference.onnx", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    fn rewritten(model: &[u8], block: Option<usize>) -> Option<Rewritten> {
        super::rewritten(model, block, Products::Three)
    }

    fn without_head(model: &[u8]) -> Option<(Vec<u8>, Head)> {
        let Rewritten { model, head } = rewritten(model, None)?;
        Some((model, head.unwrap()))
    }

    #[test]
    fn recognisers_lose_their_last_layer_and_only_that() {
        for (kind, features, classes) in [("v6-small/rec", 120, 18710), ("v6-cascade/rec_first", 80, 6906)] {
            let whole = network(kind);
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
            ["v6-small/rec", "v6-small-int8/rec"].map(|kind| without_head(&network(kind)).unwrap());
        assert_eq!((head.features(), head.classes()), (exact.features(), exact.classes()));
        assert!(cut.len() < exact_cut.len() / 2);
        // Rounded weights tell nearly all of any columns' classes.
        let columns: Vec<f32> = (0..120 * 40).map(|at| ((at * 37 % 101) as f32 - 50.0) / 25.0).collect();
        let [wanted, found] = [exact, head].map(|head| head.best_classes(&columns));
        let alike = |(a, b): &(&(u32, f32), &(u32, f32))| a.0 == b.0 && (a.1 - b.1).abs() < 0.1;
        let alike = wanted.iter().zip(&found).filter(alike).count();
        assert!(alike >= 36, "{alike}");
    }

    #[test]
    fn the_last_layer_is_of_the_products_that_are_asked_for() {
        let whole = network("v6-cascade/rec_first");
        let columns: Vec<f32> = (0..80 * 40).map(|at| ((at * 37 % 101) as f32 - 50.0) / 25.0).collect();
        let [one, three] = [Products::One, Products::Three]
            .map(|products| super::rewritten(&whole, None, products).unwrap().head.unwrap().best_classes(&columns));
        // Without a matrix unit both are in f32.
        assert_eq!(one != three, crate::tiles::is_there());
    }

    /// A last layer of 2 features and 3 classes, and nothing else.
    fn layer(weights: Vec<u8>, scales: Option<Vec<u8>>, bias: Vec<u8>, axis: u64) -> Vec<u8> {
        let used = if scales.is_some() { "scaled" } else { "weights" };
        let mut graph = vec![
            new::node("MatMul", &["columns", used], "product", &[]),
            new::node("Add", &["product", "bias"], "logits", &[]),
            new::node("Softmax", &["logits"], "classes", &[&new::integer("axis", 2)]),
        ];
        if scales.is_some() {
            graph.push(new::node("DequantizeLinear", &["weights", "scales"], "scaled", &[&new::integer("axis", axis)]));
        }
        graph.extend([Some(weights), scales, Some(bias)].into_iter().flatten());
        new::model(&graph, "columns", "classes")
    }

    #[test]
    fn a_last_layer_of_wrong_types_or_sizes_is_left_to_the_runtime() {
        let zeros = |name, kind, dimensions: &[u64], bytes| new::constant(name, kind, dimensions, &vec![0; bytes]);
        let integers = || zeros("weights", Kind::I8, &[2, 3], 6);
        let weights = || zeros("weights", Kind::F32, &[2, 3], 24);
        let scales = || Some(zeros("scales", Kind::F32, &[3], 12));
        let bias = || zeros("bias", Kind::F32, &[3], 12);
        assert!(rewritten(&layer(integers(), scales(), bias(), 1), Some(16)).is_some());
        assert!(rewritten(&layer(weights(), None, bias(), 1), Some(16)).is_some());
        let short = |name, bytes| zeros(name, Kind::F32, &[3], bytes);
        for wrong in [
            layer(integers(), scales(), bias(), 0),
            layer(integers(), None, bias(), 1),
            layer(weights(), scales(), bias(), 1),
            layer(integers(), Some(short("scales", 8)), bias(), 1),
            layer(integers(), Some(short("scales", 0)), bias(), 1),
            layer(integers(), Some(zeros("scales", Kind::I8, &[3], 3)), bias(), 1),
            layer(integers(), scales(), short("bias", 8), 1),
            layer(integers(), scales(), zeros("bias", Kind::I8, &[3], 3), 1),
            layer(zeros("weights", Kind::I8, &[2, 0], 0), Some(zeros("scales", Kind::F32, &[0], 0)), bias(), 1),
            layer(zeros("weights", Kind::F32, &[2, 3], 20), None, bias(), 1),
        ] {
            assert!(rewritten(&wrong, Some(16)).is_none());
        }
    }

    /// How many nodes of each of these kinds the network has.
    fn kinds<const N: usize>(model: &[u8], kinds: [&str; N]) -> [usize; N] {
        let mut counts = [0; N];
        with_changes(model, |graph, _| {
            counts = kinds.map(|kind| graph.nodes.values().filter(|node| node.kind == kind).count());
        });
        counts
    }

    #[test]
    fn detection_has_fewer_passes_between_its_convolutions() {
        let whole = network("v6-small/det");
        let wanted = ["ConvTranspose", "Conv", "MaxPool", "Identity", "DepthToSpace", "Mul", "Add", "Concat"];
        let [up, conv, pool, same, aside, mul, add, concat] = kinds(&whole, wanted);
        assert_eq!((up, same, aside), (2, 0, 0));
        let [of_8, of_16] = [8, 16].map(|block| rewritten(&whole, Some(block)).unwrap());
        for Rewritten { model, head } in [&of_8, &of_16] {
            assert!(head.is_none());
            // 8 of 13 gates are added to what they gate, the others' products stay in blocks; one convolution becomes two.
            assert_eq!(kinds(model, wanted), [0, conv + 3, pool + 5, 0, 1, mul, add - 1, concat - 1]);
        }
        // 8 channels more fill blocks of 16: made of 27 numbers and a bias each, taken by 12 channels (2 x 2) and by 24 (3 x 3).
        let filling = 4 * 8 * (27 + 1 + 12 * 4 + 24 * 9);
        let more = of_16.model.len() - of_8.model.len();
        assert!((filling..filling + 20).contains(&more), "{more}");
        assert!(rewritten(&whole, None).is_none());
    }

    #[test]
    fn recognisers_keep_what_is_gated_in_blocks() {
        for (kind, gates) in [("v6-small/rec", 5), ("v6-cascade/rec_first", 3)] {
            let whole = network(kind);
            let [before, after] =
                [&whole, &rewritten(&whole, Some(16)).unwrap().model].map(|model| kinds(model, ["MaxPool"])[0]);
            assert_eq!(after, before + gates, "{kind}");
        }
    }

    type Nodes<'a> = &'a [(&'a str, &'a [&'a str], &'a str)];

    /// Whether a graph of these nodes changes, whose output is the last one's.
    fn changes(nodes: Nodes, constants: &[(&str, &[u64])]) -> bool {
        let mut graph: Vec<_> = nodes
            .iter()
            .map(|(kind, inputs, output)| new::node(kind, inputs, output, &[&new::integer("axis", 1)]))
            .collect();
        for (name, dimensions) in constants {
            let count = dimensions.iter().product::<u64>();
            graph.push(f32_constant(name, dimensions, &vec![0.0; count as usize]));
        }
        rewritten(&new::model(&graph, "image", nodes.last().unwrap().2), Some(16)).is_some()
    }

    #[test]
    fn a_gate_of_other_use_is_left_alone() {
        let with = |users: Nodes| {
            let gate: Nodes = &[("HardSigmoid", &["pooled"], "gate"), ("Identity", &["gate"], "copy")];
            let products: [Nodes; 2] =
                [&[("Mul", &["map", "copy"], "product")], &[("Mul", &["copy", "map"], "product")]];
            let [one, other] = products.map(|product| changes(&[gate, product, users].concat(), &[]));
            assert_eq!(one, other);
            one
        };
        assert!(with(&[("Add", &["map", "product"], "sum")]));
        assert!(with(&[("Identity", &["product"], "same"), ("Add", &["same", "map"], "sum")]));
        assert!(with(&[("Conv", &["product", "weights"], "c"), ("Add", &["product", "c"], "sum")]));
        // Another sum, a second user, one user alone, another operator, the model's output.
        assert!(!with(&[("Add", &["other", "product"], "sum")]));
        assert!(!with(&[("Relu", &["product"], "r"), ("Add", &["map", "product"], "sum")]));
        assert!(!with(&[("Conv", &["product", "weights"], "c"), ("Add", &["map", "c"], "sum")]));
        assert!(!with(&[("Sub", &["map", "product"], "d"), ("Add", &["map", "map"], "sum")]));
        assert!(!with(&[("Add", &["map", "product"], "sum"), ("Identity", &["product"], "same")]));
        // The activation: its gate is of the map itself.
        let nodes: Nodes = &[
            ("HardSigmoid", &["map"], "gate"),
            ("Mul", &["map", "gate"], "product"),
            ("Add", &["map", "product"], "sum"),
        ];
        assert!(!changes(nodes, &[]));
    }

    #[test]
    fn maps_that_other_nodes_take_keep_their_channels() {
        const SIZES: [(&str, &[u64]); 6] =
            [("w", &[3, 3, 2, 2]), ("b", &[3]), ("x", &[2, 3, 1, 1]), ("y", &[2]), ("v", &[4, 5, 1, 1]), ("c", &[4])];
        let with = |more: Nodes, sizes: &[(&str, &[u64])]| {
            let stem: Nodes = &[
                ("Conv", &["image", "w", "b"], "first"),
                ("Relu", &["first"], "map"),
                ("MaxPool", &["map"], "pooled"),
                ("Conv", &["map", "x", "y"], "aside"),
                ("Concat", &["pooled", "aside"], "both"),
            ];
            let last: Nodes = &[("Conv", &["both", "v", "c"], "out")];
            changes(&[stem, more, last].concat(), sizes)
        };
        assert!(with(&[], &SIZES));
        assert!(!with(&[("Add", &["other", "map"], "sum")], &SIZES));
        assert!(!with(&[("Split", &["map"], "part")], &SIZES));
        assert!(!with(&[("Relu", &["both"], "again")], &SIZES));
        assert!(!with(&[("Relu", &["w"], "weights")], &SIZES));
        // A second one over the same map.
        assert!(!with(&[("MaxPool", &["map"], "second"), ("Concat", &["second", "aside"], "two")], &SIZES));
        // Sizes of which there is nothing, too few channels, a bias of another size.
        let sized =
            |name, size: &'static [u64]| SIZES.map(|(other, old)| (other, if other == name { size } else { old }));
        for (name, size) in [
            ("v", &[4, 5, 0, 0][..]),
            ("v", &[1, 0, 1 << 45, 1]),
            ("v", &[4, 3, 1, 1]),
            ("w", &[0, 3, 2, 2]),
            ("c", &[5]),
        ] {
            assert!(!with(&[], &sized(name, size)), "{name} {size:?}");
        }
    }

    #[test]
    fn only_an_upsampling_without_overlap_is_done_before_the_map_grows() {
        let with = |attributes: &[(&str, &[u64])], bias: &[u64]| {
            let attributes: Vec<_> = attributes.iter().map(|(name, values)| new::integers(name, values)).collect();
            let attributes: Vec<_> = attributes.iter().map(Vec::as_slice).collect();
            let graph = [
                new::node("ConvTranspose", &["map", "w"], "a", &attributes),
                new::node("Add", &["a", "b"], "c", &[]),
                new::node("Relu", &["c"], "d", &[]),
                new::node("ConvTranspose", &["d", "v"], "e", &[&new::integers("strides", &[2, 2])]),
                new::node("Add", &["e", "g"], "f", &[]),
                new::node("Sigmoid", &["f"], "h", &[]),
                new::node("Identity", &["h"], "out", &[]),
                f32_constant("w", &[3, 2, 2, 2], &[1.0; 24]),
                f32_constant("b", bias, &[1.0; 2]),
                f32_constant("v", &[2, 1, 2, 2], &[1.0; 8]),
                f32_constant("g", &[1, 1, 1, 1], &[1.0]),
            ];
            let rewritten = rewritten(&new::model(&graph, "map", "out"), Some(8));
            rewritten.is_some_and(|Rewritten { model, .. }| kinds(&model, ["DepthToSpace", "Identity"]) == [1, 0])
        };
        let strides: (&str, &[u64]) = ("strides", &[2, 2]);
        assert!(with(&[strides], &[1, 2, 1, 1]));
        assert!(with(&[strides, ("pads", &[0; 4]), ("dilations", &[1, 1])], &[1, 2, 1, 1]));
        assert!(!with(&[], &[1, 2, 1, 1]));
        assert!(!with(&[strides], &[1, 1, 1, 2]));
        for (name, values) in [("pads", &[0, 0, 1, 1][..]), ("output_padding", &[1, 1]), ("output_shape", &[9, 9])] {
            assert!(!with(&[strides, (name, values)], &[1, 2, 1, 1]), "{name}");
        }
    }

    #[test]
    fn other_models_and_broken_ones_are_left_as_they_are() {
        assert!(rewritten(&network("v6-small/cls"), Some(16)).is_none());
        assert!(rewritten(b"not a model", Some(16)).is_none());
        assert!(rewritten(&[], Some(16)).is_none());
        for whole in ["v6-cascade/rec_first", "v6-small-int8/rec", "v6-small/det"].map(network) {
            let graph = graph_of(&whole).unwrap();
            let ends = (0..graph.len()).step_by(graph.len() / 50 + 1);
            for end in ends.chain(graph.len() - 300..graph.len()) {
                // Towards the end, where nothing that is needed is missing any more, it may be changed; it never panics.
                let changed = rewritten(&new::model_of(&graph[..end]), Some(16)).is_some();
                assert!(!changed || end > graph.len() / 2, "{end}");
            }
        }
    }
}
