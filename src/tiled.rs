//! ONNX Runtime's convolutions in blocks, put on the processor's matrix unit where it has one: see [`crate::convolution`].
//!
//! Those whose inputs and outputs fill blocks are three quarters of a page's time. Their weights become tiles when the network is loaded; a Gelu that
//! takes such a sum is done with it, while it is in the nearest cache.

use crate::blocks::{BLOCKED, DOMAIN, Own, is, quantizes};
use crate::convolution::{Activation, Plan, Window};
use crate::onnx::{Changes, Graph, Kind, Node, new};
use crate::rewrite::name;
use crate::tiles::{self, Products};

/// Replaces all convolutions that the unit can do.
pub(crate) fn on_tiles(graph: &Graph, changes: &mut Changes, products: Products) {
    // A sum that is off by a millionth would round some integers to the other side.
    if graph.nodes.values().any(quantizes) {
        return;
    }
    for (&at, node) in &graph.nodes {
        let mut own = Changes::new();
        if one(graph, (at, node), products, &mut own).is_some() {
            changes.append(&mut own);
        }
    }
}

fn one(graph: &Graph, (at, node): (usize, &Node), products: Products, changes: &mut Changes) -> Option<()> {
    let (&[map, weights, ref more @ ..], &[output]) = (&*node.inputs, &*node.outputs) else { return None };
    let is_plain = node.foreign == (BLOCKED, "Conv")
        && is(node, "dilations", 1)
        && node.integer("group").is_none_or(|groups| groups == 1);
    let activation = match node.text("activation") {
        None | Some("") => Activation::None,
        Some("Relu") => Activation::Relu,
        _ => return None,
    };
    if !is_plain {
        return None;
    }
    let (weights, name_of) = (graph.take_constant(weights, Kind::F32, changes)?, |part| name(output, part));
    let &[outputs, inputs, height, width] = &*weights.dimensions else { return None };
    let side = |side: u64| usize::try_from(side).ok();
    let sides = [side(outputs)?, side(inputs)?, side(height)?, side(width)?];
    let list = |attribute, missing: &[u64]| node.integers(attribute).unwrap_or_else(|| missing.to_vec());
    let (strides, mut pads) = (list("strides", &[1, 1]), list("pads", &[0; 4]));
    match node.text("auto_pad") {
        None | Some("NOTSET") => {}
        // As large as the map; of an odd number the larger half comes after it.
        Some("SAME_UPPER") if strides == [1, 1] && height > 0 && width > 0 => {
            let (above, left) = ((height - 1) / 2, (width - 1) / 2);
            pads = vec![above, left, height - 1 - above, width - 1 - left];
        }
        _ => return None,
    }
    let (&[down, right], &[above, left, below, after]) = (&*strides, &*pads) else { return None };
    let window = Window {
        kernel: [sides[2], sides[3]],
        strides: [side(down)?, side(right)?],
        pads: [side(above)?, side(left)?, side(below)?, side(after)?],
    };
    if !window.is_usual() {
        return None;
    }
    let tiles: Vec<u8> =
        tiles::tiles(&weights.values, sides, products)?.into_iter().flat_map(u32::to_le_bytes).collect();
    let (bias, sum) = match *more {
        [] => ("", None),
        [bias] | [bias, ""] => (bias, None),
        [bias, sum] => (bias, Some(sum)),
        _ => return None,
    };
    if !bias.is_empty() && graph.shape(bias) != Some((Kind::F32 as u64, vec![outputs])) {
        return None;
    }
    let mut fields = new::constant(&name_of("tiles"), Kind::F32, &[tiles.len() as u64 / 4], &tiles);
    let bias = if bias.is_empty() {
        let zeros = vec![0; sides[0] * 4];
        fields.extend(new::constant(&name_of("bias"), Kind::F32, &[outputs], &zeros));
        name_of("bias")
    } else {
        bias.to_owned()
    };
    let mut plan = Plan { window, activation, inputs: sides[1] / tiles::BLOCK, products };
    let mut given = output;
    if let (Activation::None, true, Some((gelu_at, gelu))) =
        (activation, graph.is_used_once(output), graph.users(output).next())
        && let ((DOMAIN, "Gelu"), &[value], &[last]) = (gelu.foreign, &*gelu.inputs, &*gelu.outputs)
        && value == output
    {
        changes.insert(gelu_at, Vec::new());
        (plan.activation, given) = (Activation::Gelu, last);
    }
    let numbers: Vec<u8> = plan.numbers().into_iter().flat_map(f32::to_le_bytes).collect();
    fields.extend(new::constant(&name_of("window"), Kind::F32, &[numbers.len() as u64 / 4], &numbers));
    let (tiles, window) = (name_of("tiles"), name_of("window"));
    let mut inputs = vec![map, &tiles, &bias, &window];
    inputs.extend(sum);
    let own = if sum.is_some() { Own::ConvolutionSum } else { Own::Convolution };
    fields.extend(new::node_of(DOMAIN, own.signature().0, &inputs, given, &[]));
    changes.insert(at, fields);
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::blocks::{node, told};
    use crate::onnx::with_changes;

    fn zeros(name: &str, sides: &[u64]) -> Vec<u8> {
        new::constant(name, Kind::F32, sides, &vec![0; sides.iter().product::<u64>() as usize * 4])
    }

    fn convolution(inputs: &[&str], output: &str, attributes: &[&[u8]]) -> Vec<u8> {
        new::node_of(BLOCKED, "Conv", inputs, output, attributes)
    }

    fn gelu(value: &str, output: &str) -> Vec<u8> {
        new::node_of(DOMAIN, "Gelu", &[value], output, &[])
    }

    fn in_three(graph: &Graph, changes: &mut Changes) {
        on_tiles(graph, changes, Products::Three);
    }

    /// The nodes after it.
    fn tiled(graph: &[Vec<u8>]) -> Option<Vec<String>> {
        let (model, ()) = with_changes(&new::model(graph, "pixels", "result"), in_three)?;
        let part = |line: String| line.replace('\u{1f}', ".");
        Some(told(&model).into_iter().map(part).collect())
    }

    #[test]
    fn a_gelu_is_done_with_the_convolution_that_it_alone_takes() {
        let graph = [
            zeros("w", &[32, 16, 1, 1]),
            zeros("v", &[16, 32, 3, 3]),
            zeros("b", &[32]),
            convolution(&["pixels", "w", "b"], "a", &[]),
            gelu("a", "g"),
            convolution(&["g", "v", "", "pixels"], "result", &[&new::integers("pads", &[1, 1, 1, 1])]),
        ];
        let wanted = [
            "*Convolution(pixels a.tiles b a.window) g",
            "*ConvolutionSum(g result.tiles result.bias result.window pixels) result",
        ];
        assert_eq!(tiled(&graph).unwrap(), wanted);
        let [w, _, b, first, ..] = graph;
        let taken_twice = [w, b, first, gelu("a", "g"), node("Add", &["a", "g"], "result")];
        let wanted = ["*Convolution(pixels a.tiles b a.window) a", "*Gelu(a) g", "Add(a g) result"];
        assert_eq!(tiled(&taken_twice).unwrap(), wanted);
        // A copy is the result.
        let [w, b, first, ..] = taken_twice;
        let copied = [w, b, first, gelu("a", "g"), node("Identity", &["a"], "result")];
        let wanted = ["*Convolution(pixels a.tiles b a.window) a", "*Gelu(a) g", "Identity(a) result"];
        assert_eq!(tiled(&copied).unwrap(), wanted);
    }

    #[test]
    fn convolutions_of_other_kinds_are_left() {
        let groups = new::integer("group", 16);
        let dilated = new::integers("dilations", &[2, 2]);
        let lower = new::text("auto_pad", "SAME_LOWER");
        let clipped = new::text("activation", "Clip");
        let far = new::integers("strides", &[1, 1_000_000]);
        let backwards = new::integers("strides", &[1, u64::MAX]);
        for attribute in [groups, dilated, lower, clipped, far, backwards] {
            let weights = [zeros("w", &[16, 16, 1, 1]), zeros("b", &[16])].concat();
            assert!(tiled(&[weights, convolution(&["pixels", "w", "b"], "result", &[&attribute])]).is_none());
        }
        let short = [zeros("w", &[16, 16, 1, 1]), zeros("b", &[8])].concat();
        assert!(tiled(&[short, convolution(&["pixels", "w", "b"], "result", &[])]).is_none());
        // Channels that fill no blocks, weights that are none, or that others take too.
        let sides = zeros("w", &[16, 3, 1, 1]);
        assert!(tiled(&[sides, convolution(&["pixels", "w"], "result", &[])]).is_none());
        assert!(tiled(&[convolution(&["pixels", "w"], "result", &[])]).is_none());
        let twice = [
            zeros("w", &[16, 16, 1, 1]),
            convolution(&["pixels", "w"], "a", &[]),
            convolution(&["a", "w"], "result", &[]),
        ];
        assert!(tiled(&twice).is_none());
    }

    #[test]
    fn what_integers_are_made_of_is_left() {
        let graph = [
            zeros("w", &[16, 16, 1, 1]),
            convolution(&["pixels", "w"], "a", &[]),
            node("QuantizeLinear", &["a", "scale", "zero"], "result"),
        ];
        assert!(tiled(&graph).is_none());
    }

    #[test]
    fn a_plan_is_found_again_by_its_numbers() {
        let graph = [
            zeros("w", &[16, 16, 2, 2]),
            convolution(
                &["pixels", "w"],
                "result",
                &[&new::text("auto_pad", "SAME_UPPER"), &new::text("activation", "Relu")],
            ),
        ];
        let (model, ()) = with_changes(&new::model(&graph, "pixels", "result"), in_three).unwrap();
        let _ = with_changes(&model, |graph, _| {
            let numbers = graph.constant(&name("result", "window")).unwrap().values;
            let window = Window { kernel: [2, 2], strides: [1, 1], pads: [0, 0, 1, 1] };
            let wanted = Plan { window, activation: Activation::Relu, inputs: 1, products: Products::Three };
            assert_eq!(Plan::of_numbers(&numbers), Some(wanted));
        });
        assert_eq!(Plan::of_numbers(&[1.0; 10]), None);
        assert_eq!(Plan::of_numbers(&[7.0; 11]), None);
    }
}
