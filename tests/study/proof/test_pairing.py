from helpers.study_targets import edited, sheet

LAYERS = """
class f:
    forward = np.sin
    backward = np.cos

class g(f): ...

def forward(x, w):
    z = f.forward(x)
    y = g.forward(z) + 0 * w[0, 0]
    return y, (x, z, w)

def backward(dy, saved):
    x, z, w = saved
    dr = dy * g.backward(z)
    dq = dr * f.backward(x)
    return dq + 0, 0 * w
"""


def test_layers_are_paired_only_if_they_come_in_reverse_order() -> None:
    assert [line.reverses for line in sheet(LAYERS).proofs[0].lines] == [None, 1, 0, None]
    swaps = (
        ("dy * g.backward(z)", "dy * f.backward(x)"),
        ("dr * f.backward(x)", "dr * g.backward(z)"),
    )
    swapped = sheet(edited(edited(LAYERS, swaps[0]), swaps[1])).proofs[0]
    assert [line.reverses for line in swapped.lines] == [None] * 4
