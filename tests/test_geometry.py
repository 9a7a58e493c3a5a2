"""Frames compose and invert, findings follow them, and masks are painted where they say."""

import math

import matplotlib.path
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammopath.images.geometry import Frame, paint
from mammopath.types import Finding

_PLACE = st.floats(-100, 100)
_SCALE = st.one_of(st.floats(0.05, 20), st.floats(-20, -0.05))
_FRAME = st.tuples(_SCALE, _SCALE, _PLACE, _PLACE)
_POINT = st.tuples(_PLACE, _PLACE)


def _close(a, b):
    return np.allclose(a, b, rtol=1e-6, atol=1e-4)


@given(values=_FRAME, point=_POINT)
def test_the_inverse_leads_back(values, point):
    frame = Frame(*values)
    assert _close(frame.inverse().point(*frame.point(*point)), point)
    assert _close(frame.then(frame.inverse()).point(*point), point)


@given(a=_FRAME, b=_FRAME, c=_FRAME, point=_POINT)
def test_composing_is_doing_one_after_the_other(a, b, c, point):
    first, second, third = Frame(*a), Frame(*b), Frame(*c)
    assert _close(first.then(second).point(*point), second.point(*first.point(*point)))
    left, right = first.then(second).then(third), first.then(second.then(third))
    assert np.allclose(left.point(*point), right.point(*point), rtol=1e-6, atol=1e-2)


@given(width=st.floats(1, 500), point=_POINT)
def test_mirroring_twice_is_nothing(width, point):
    once = Frame().mirrored(width)
    assert _close(once.point(*point), (width - point[0], point[1]))
    assert _close(once.mirrored(width).point(*point), point)


def test_the_way_of_a_mammogram():
    """Cut 10 columns and 20 rows, halve to 45 x 40, mirror, pad 5 columns and 2 rows."""
    frame = Frame().cropped(10, 20).scaled(0.5, 0.5).mirrored(45).padded(5, 2)
    assert frame.point(10, 20) == (50, 2)
    assert frame.point(100, 100) == (5, 42)


@pytest.mark.parametrize(
    "values", [(0.0, 1.0, 0.0, 0.0), (1.0, math.nan, 0.0, 0.0), (1.0, 1.0, math.inf, 0.0)]
)
def test_frames_that_lead_nowhere_are_refused(values):
    with pytest.raises(ValueError, match="a frame must"):
        Frame(*values)


@given(values=_FRAME, corners=st.tuples(_POINT, _POINT))
def test_a_box_stays_a_box(values, corners):
    (x0, y0), (x1, y1) = corners
    box = Finding("box", ((min(x0, x1), min(y0, y1)), (max(x0, x1), max(y0, y1))), malignant=1.0, name="mass")
    frame = Frame(*values)
    mapped = frame.finding(box)
    (left, top), (right, bottom) = mapped.points
    assert left <= right
    assert top <= bottom
    assert (mapped.kind, mapped.malignant, mapped.name) == ("box", 1.0, "mass")
    assert _close(frame.inverse().finding(mapped).points, box.points)


@given(scale=_SCALE, centre=_POINT, radius=st.floats(0.1, 50))
def test_a_circle_stays_a_circle_where_the_aspect_does(scale, centre, radius):
    circle = Finding("circle", (centre,), radius=radius)
    mapped = Frame(scale, abs(scale), 3.0, 4.0).finding(circle)
    assert mapped.kind == "circle"
    assert mapped.radius == pytest.approx(abs(scale) * radius)


def test_a_stretched_circle_becomes_a_polygon_of_its_area():
    mapped = Frame(2.0, 3.0).finding(Finding("circle", ((10.0, 10.0),), radius=5.0))
    assert mapped.kind == "polygon"
    corners = np.array(mapped.points)
    x, y = corners.T
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    assert area == pytest.approx(math.pi * 10 * 15)
    assert np.allclose(corners.mean(0), (20, 30))


def _brute(finding, frame, size):
    """Go back to level-0 pixels for every centre and ask there."""
    back = frame.inverse()
    mask = np.zeros(size, dtype=bool)
    for row in range(size[0]):
        for column in range(size[1]):
            x, y = back.point(column + 0.5, row + 0.5)
            if finding.kind == "box":
                left, top, right, bottom = finding.box()
                mask[row, column] = left <= x <= right and top <= y <= bottom
            else:
                mask[row, column] = math.dist((x, y), finding.points[0]) <= finding.radius
    return mask


_FRAMES = [Frame(), Frame(0.37, 0.71, 2.0, 1.0), Frame(-0.5, 0.5, 20.0, 0.0), Frame(1.7, 1.3, -12.0, -9.0)]


@pytest.mark.parametrize("frame", _FRAMES)
@pytest.mark.parametrize("finding", [
    Finding("box", ((3.2, 4.1), (17.7, 21.3))), Finding("circle", ((14.3, 11.2),), radius=7.1),
    Finding("box", ((-5.1, -5.0), (9.2, 60.0))), Finding("circle", ((1.0, 1.0),), radius=30.0),
])  # fmt: skip
def test_boxes_and_circles_are_painted_where_they_are(frame, finding):
    assert np.array_equal(paint([finding], frame, (19, 23)), _brute(finding, frame, (19, 23)))


@given(corners=st.lists(st.tuples(st.floats(-5, 30), st.floats(-5, 30)), min_size=3, max_size=3))
def test_triangles_are_painted_as_matplotlib_says(corners):
    mask = paint([Finding("polygon", tuple(corners))], Frame(0.9, 1.1, 1.0, -2.0), (20, 25))
    mapped = [Frame(0.9, 1.1, 1.0, -2.0).point(*c) for c in corners]
    x, y = np.meshgrid(np.arange(25) + 0.5, np.arange(20) + 0.5)
    inside = (
        matplotlib.path.Path([*mapped, mapped[0]])
        .contains_points(np.c_[x.ravel(), y.ravel()])
        .reshape(20, 25)
    )
    assert (mask != inside).sum() <= 2  # centres on an edge, and the mark of an empty triangle


def test_a_concave_polygon_keeps_its_notch():
    points = ((0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (5.0, 2.0), (0.0, 10.0))
    mask = paint([Finding("polygon", points)], Frame(), (10, 10))
    assert mask[0].all()
    assert not mask[8, 5]
    assert mask[8, 0]


@pytest.mark.parametrize("finding", [
    Finding("point", ((7.9, 3.1),)), Finding("circle", ((7.9, 3.1),), radius=0.1),
    Finding("box", ((7.8, 3.0), (7.95, 3.2))),
])  # fmt: skip
def test_the_smallest_findings_mark_one_pixel(finding):
    mask = paint([finding], Frame(), (10, 10))
    assert np.argwhere(mask).tolist() == [[3, 7]]


def test_findings_outside_mark_nothing_and_several_add_up():
    outside = Finding("circle", ((-50.0, 3.0),), radius=4.0)
    assert not paint([outside, Finding("point", ((30.0, 3.0),))], Frame(), (10, 10)).any()
    two = [Finding("point", ((1.0, 1.0),)), Finding("point", ((5.0, 5.0),))]
    assert paint(two, Frame(), (10, 10)).sum() == 2
    assert not paint([], Frame(), (4, 4)).any()
