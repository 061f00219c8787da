//! What goes number by number, several steps at once.
//!
//! ONNX Runtime goes over a whole map for each step. Between two convolutions of PP-OCRv4's and v5's networks there are up to eight of them, which
//! take longer than the convolutions: scale and shift, their activation `x * clip(x + 3, 0, 6) / 6`, scale and shift. One own operator takes a
//! few numbers through all, then the next ones; scales and shifts in a row are one.

use std::collections::{HashMap, HashSet};

use crate::blocks::{DOMAIN, Own, quantizes};
use crate::onnx::{Changes, Graph, Kind, Node, new};
use crate::operators::Step;
use crate::rewrite::name;

/// Steps from a value to another one, and the nodes that take them.
#[derive(Clone)]
struct Chain<'a> {
    source: &'a str,
    steps: Vec<Step>,
    nodes: Vec<usize>,
}

/// Makes one node of each chain of nodes that nobody looks into.
pub(crate) fn join(graph: &Graph, changes: &mut Changes) {
    // Integers' numbers keep their last bit, which may decide what they are rounded to.
    if graph.nodes.values().any(quantizes) {
        return;
    }
    let (mut chains, mut parts) = (HashMap::new(), HashSet::new());
    for (&at, node) in &graph.nodes {
        let &[output] = &*node.outputs else { continue };
        let Some((mut chain, of)) = with_kept(graph, node, &chains).or_else(|| one_more(graph, node, &chains)) else {
            continue;
        };
        chain.nodes.push(at);
        parts.extend(of);
        chains.insert(output, chain);
    }
    for (output, Chain { source, steps, mut nodes }) in chains {
        let Some(last) = nodes.pop().filter(|_| !nodes.is_empty() && !parts.contains(output)) else { continue };
        changes.extend(nodes.into_iter().map(|node| (node, Vec::new())));
        let (table, numbers) = (name(output, "steps"), steps.iter().map(|step| step.numbers()));
        let bytes: Vec<u8> = numbers.flatten().flat_map(f32::to_le_bytes).collect();
        let mut fields = new::constant(&table, Kind::F32, &[steps.len() as u64, 3], &bytes);
        fields.extend(new::node_of(DOMAIN, Own::Chain.signature().0, &[source, &table], output, &[]));
        changes.insert(last, fields);
    }
}

/// The chain that ends in a value, where only `users` nodes take it.
fn ending_in<'c, 'a>(
    graph: &Graph<'a>,
    value: &'a str,
    users: usize,
    chains: &'c HashMap<&'a str, Chain<'a>>,
) -> Option<&'c Chain<'a>> {
    chains.get(value).filter(|_| value != graph.output && graph.users(value).count() == users)
}

/// A chain, and the values within it that others end in.
type Longer<'a> = (Chain<'a>, Vec<&'a str>);

/// What goes on from a value: the chain that ends in it, if only `users` nodes take it, or a new one.
fn so_far<'a>(graph: &Graph<'a>, value: &'a str, users: usize, chains: &HashMap<&'a str, Chain<'a>>) -> Longer<'a> {
    match ending_in(graph, value, users, chains) {
        Some(chain) => (chain.clone(), vec![value]),
        None => (Chain { source: value, steps: Vec::new(), nodes: Vec::new() }, Vec::new()),
    }
}

/// The chain of a node whose other inputs are single constants.
fn one_more<'a>(graph: &Graph<'a>, node: &Node<'a>, chains: &HashMap<&'a str, Chain<'a>>) -> Option<Longer<'a>> {
    // A value of fewer sides than the constant would get its sides.
    let constant = |name: &str| {
        let one = graph.constant(name).filter(|one| one.dimensions.len() <= 1 && one.values.len() == 1)?;
        Some(one.values[0])
    };
    let either = |a, b| constant(b).map(|k| (a, k)).or_else(|| constant(a).map(|k| (b, k)));
    let (value, steps) = match (node.kind, &*node.inputs) {
        ("Add", &[a, b]) => either(a, b).map(|(value, k)| (value, vec![Step::Affine(1.0, k)]))?,
        ("Mul", &[a, b]) => either(a, b).map(|(value, k)| (value, vec![Step::Affine(k, 0.0)]))?,
        ("Div", &[a, b]) => (a, vec![Step::Affine(constant(b)?.recip(), 0.0)]),
        ("Clip", &[a, low, high]) => (a, vec![Step::Clamp(constant(low)?, constant(high)?)]),
        ("Relu", &[a]) => (a, vec![Step::Clamp(0.0, f32::INFINITY)]),
        ("HardSigmoid", &[a]) => {
            let (scale, shift) = (node.number("alpha").unwrap_or(0.2), node.number("beta").unwrap_or(0.5));
            (a, vec![Step::Affine(scale, shift), Step::Clamp(0.0, 1.0)])
        }
        _ => return None,
    };
    let (mut chain, parts) = so_far(graph, value, 1, chains);
    for step in steps {
        match (chain.steps.last_mut(), step) {
            (Some(Step::Affine(scale, shift)), Step::Affine(more, further)) => {
                (*scale, *shift) = (*scale * more, *shift * more + further);
            }
            _ => chain.steps.push(step),
        }
    }
    Some((chain, parts))
}

/// The chain of a product of a value and of what a chain makes of it.
fn with_kept<'a>(graph: &Graph<'a>, node: &Node<'a>, chains: &HashMap<&'a str, Chain<'a>>) -> Option<Longer<'a>> {
    let ("Mul", &[a, b]) = (node.kind, &*node.inputs) else { return None };
    let of = |value, factor| {
        let chain = ending_in(graph, factor, 1, chains).filter(|chain| chain.source == value)?;
        (!chain.steps.contains(&Step::Keep)).then_some((value, factor, chain))
    };
    let (value, factor, inner) = of(a, b).or_else(|| of(b, a))?;
    // Who takes the value are the first node of that chain and this one.
    let (mut chain, mut parts) = so_far(graph, value, 2, chains);
    parts.push(factor);
    chain.steps.push(Step::Keep);
    chain.steps.extend_from_slice(&inner.steps);
    chain.steps.push(Step::MultiplyKept);
    chain.nodes.extend_from_slice(&inner.nodes);
    Some((chain, parts))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::blocks::{node, number, told};
    use crate::onnx::with_changes;

    /// The nodes after it, as [`told`], and the steps of the first chain.
    fn joined(nodes: &[Vec<u8>]) -> Option<(Vec<String>, Vec<f32>)> {
        let constants = [("scale", 1.5), ("shift", -0.5), ("zero", 0.0), ("three", 3.0), ("six", 6.0)];
        let mut graph: Vec<Vec<u8>> = constants.iter().map(|&(name, value)| number(name, value)).collect();
        graph.push(new::constant("two", Kind::F32, &[2], &[0; 8]));
        graph.extend_from_slice(nodes);
        let (model, ()) = with_changes(&new::model(&graph, "pixels", "result"), join)?;
        let mut steps = Vec::new();
        let _ = with_changes(&model, |graph, _| {
            let tables = graph.nodes.values().filter_map(|node| graph.constant(node.inputs.get(1)?));
            steps.extend(tables.map(|table| table.values));
        });
        Some((told(&model), steps.into_iter().next().unwrap_or_default()))
    }

    #[test]
    fn an_activation_with_scale_and_shift_on_both_sides_is_one_node() {
        let (nodes, steps) = joined(&[
            node("Conv", &["pixels", "w"], "a"),
            node("Mul", &["scale", "a"], "b"),
            node("Add", &["b", "shift"], "c"),
            node("Add", &["c", "three"], "d"),
            node("Clip", &["d", "zero", "six"], "e"),
            node("Mul", &["c", "e"], "f"),
            node("Div", &["f", "six"], "g"),
            node("Mul", &["g", "scale"], "h"),
            node("Conv", &["h", "w"], "result"),
        ])
        .unwrap();
        assert_eq!(nodes, ["Conv(pixels w) a", "*Chain(a h') h", "Conv(h w) result"]);
        let wanted = [
            Step::Affine(1.5, -0.5),
            Step::Keep,
            Step::Affine(1.0, 3.0),
            Step::Clamp(0.0, 6.0),
            Step::MultiplyKept,
            Step::Affine(1.5 * 6.0_f32.recip(), 0.0),
        ];
        let found: Vec<_> = steps.as_chunks().0.iter().map(|&step| Step::of_numbers(step).unwrap()).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_somebody_else_takes_too_is_made() {
        let (nodes, _) = joined(&[
            node("Conv", &["pixels", "w"], "a"),
            node("Mul", &["a", "scale"], "b"),
            node("Add", &["b", "shift"], "c"),
            node("HardSigmoid", &["c"], "d"),
            node("Mul", &["d", "c"], "e"),
            node("Relu", &["e"], "f"),
            node("Concat", &["c", "f"], "result"),
        ])
        .unwrap();
        assert_eq!(nodes, ["Conv(pixels w) a", "*Chain(a c') c", "*Chain(c f') f", "Concat(c f) result"]);
    }

    #[test]
    fn single_steps_maps_and_constants_of_several_numbers_are_left() {
        let left = [
            vec![node("Relu", &["pixels"], "a"), node("Conv", &["a", "w"], "result")],
            vec![node("Add", &["pixels", "two"], "a"), node("Mul", &["a", "two"], "result")],
            vec![node("Conv", &["pixels", "w"], "a"), node("Mul", &["pixels", "a"], "result")],
            vec![node("Div", &["six", "pixels"], "a"), node("Div", &["three", "a"], "result")],
            vec![node("Relu", &["pixels"], "a"), node("QuantizeLinear", &["a", "six", "zero"], "result")],
        ];
        for graph in left {
            assert_eq!(joined(&graph), None);
        }
    }

    #[test]
    fn a_value_that_is_the_result_is_no_part_of_a_chain() {
        let graph = [node("Relu", &["pixels"], "result"), node("Add", &["result", "six"], "unused")];
        assert_eq!(joined(&graph), None);
    }
}
