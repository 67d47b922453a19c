"""Pictures of scenes, drawn with Pillow only: the same scene always gives the same bytes.

A picture has 64×64 pixels: 4×4 cells of 16×16, so that a vision tower with 16×16 patches sees one cell per patch. A
picture of family `tiles` has 128×128. The seed of the scene moves things by a few pixels and shades the background.
"""

from functools import cache
from itertools import pairwise
from random import Random

from PIL import Image, ImageDraw

from mmrlhf_study.miniworld.scenes import BARS, CELLS, QUARTERS, Fact, Scene, quarter

SIDE, CELL = 64, 16
RGB = {
    "red": (220, 40, 40),
    "green": (30, 150, 60),
    "blue": (40, 80, 230),
    "yellow": (245, 195, 0),
    "purple": (150, 50, 190),
    "black": (20, 20, 20),
}
TINTS = {
    "paper": (250, 248, 240),
    "sand": (238, 226, 200),
    "sky": (214, 232, 248),
    "mint": (212, 240, 222),
    "rose": (248, 220, 224),
    "stone": (214, 214, 210),
    "lilac": (230, 220, 244),
    "snow": (255, 255, 255),
}
CLIP_STEPS = ((1, 2), (2, 2), (2, 3), (3, 3), (3, 4))  # frames to halfway and from there to the end: 4 to 8 in all
_DOTS = """
0 75557 1 26227 2 71747 3 71717 4 55711 5 74717 6 74757 7 71122 8 75757 9 75717
a 25755 b 65656 c 34443 d 65556 e 74647 f 74644 g 34553 h 55755 i 72227 j 11152 k 55655 l 44447 m 57755
n 65555 o 25552 p 65644 q 25573 r 65655 s 34216 t 72222 u 55557 v 55552 w 55775 x 55255 y 55222 z 71247
"""  # five rows of three dots, each row an octal digit
GLYPHS = dict(zip(_DOTS.split()[::2], _DOTS.split()[1::2], strict=True))


def render(scene: Scene) -> list[Image.Image]:
    """The pictures of a scene: one, the frames of a clip in order, or the two of a pair."""
    rng = Random(f"looks {scene.family} {scene.seed}")
    if scene.family == "clip":
        return _clip(scene, rng)
    if scene.family == "pair":
        halves = ([f for f in scene.facts if f.place.startswith(name)] for name in ("one", "two"))
        return [_grid(half, scene.theme, rng, SIDE) for half in halves]
    if scene.family == "chart":
        return [_chart(scene, rng)]
    if scene.family == "sign":
        return [_sign(scene, rng)]
    return [_grid(scene.facts, scene.theme, rng, 2 * SIDE if scene.family == "tiles" else SIDE)]


@cache
def _background(theme: str, side: int, shade: int) -> Image.Image:
    """The colour of a theme with faint lines, whose slope and distance depend on it; `shade` darkens it, 0 to 3."""
    tint = tuple(channel - 4 * shade for channel in TINTS[theme])
    image = Image.new("RGB", (side, side), tint)
    pen, step = ImageDraw.Draw(image), 5 + list(TINTS).index(theme)
    line = tuple(channel - 8 for channel in tint)
    for at in range(-side, side, step):
        pen.line((at, 0, at + side * (step % 3), side), fill=line)
    return image


def _canvas(theme: str, rng: Random, side: int = SIDE) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = _background(theme, side, rng.randrange(4)).copy()
    return image, ImageDraw.Draw(image)


def _shape(pen: ImageDraw.ImageDraw, phrase: str, x: float, y: float, r: float) -> None:
    """The shape named in a phrase, centred at (x, y), reaching `r` pixels to each side."""
    words = phrase.split()
    fill = next(RGB[word] for word in words if word in RGB)
    if "circle" in words:
        pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    elif "square" in words:
        pen.rectangle((x - 0.85 * r, y - 0.85 * r, x + 0.85 * r, y + 0.85 * r), fill=fill)
    elif "triangle" in words:
        pen.polygon([(x, y - r), (x + r, y + r), (x - r, y + r)], fill=fill)
    else:
        pen.rectangle((x - r, y - 0.3 * r, x + r, y + 0.3 * r), fill=fill)
        pen.rectangle((x - 0.3 * r, y - r, x + 0.3 * r, y + r), fill=fill)


def _grid(facts: list[Fact] | tuple[Fact, ...], theme: str, rng: Random, side: int) -> Image.Image:
    """Shapes in the cells of a 4×4 grid."""
    image, pen = _canvas(theme, rng, side)
    cell = side // 4
    for fact in facts:
        row, column = divmod(CELLS.index(fact.place.split()[-1]), 4)
        large = "large" in fact.thing
        slack = 1 if large else (cell - (16 if side > SIDE else 12)) // 2
        x, y = (cell * (i + 0.5) - 0.5 + rng.randint(-slack, slack) for i in (column, row))
        _shape(pen, fact.thing, x, y, 6.5 if large else 8 if side > SIDE else 5)
    return image


def _chart(scene: Scene, rng: Random) -> Image.Image:
    """Bars, each in its own column of patches, eight pixels high per unit, with a dark line on top."""
    image, pen = _canvas(scene.theme, rng)
    for level in range(1, 8):
        pen.line((0, SIDE - 8 * level, SIDE, SIDE - 8 * level), fill=(190, 190, 190))
    for fact in scene.facts:
        left, (_, colour, *_, height) = CELL * BARS.index(fact.place), fact.thing.split()
        inset = rng.randint(2, 4)
        top, right = SIDE - 8 * int(height), left + CELL - inset - 1
        pen.rectangle((left + inset, top, right, SIDE), fill=RGB[colour])
        pen.rectangle((left + inset, top, right, top + 1), fill=(60, 60, 60))
    return image


def _write(pen: ImageDraw.ImageDraw, text: str, x: int, y: int, scale: int, ink: tuple[int, int, int]) -> None:
    """Text in letters of 3×5 dots; a dot has `scale` pixels, and letters are four dots apart."""
    for at, letter in enumerate(text):
        for row, bits in enumerate(GLYPHS.get(letter, "00000")):
            for column in range(3):
                if int(bits) >> (2 - column) & 1:
                    left, top = x + scale * (4 * at + column), y + scale * row
                    pen.rectangle((left, top, left + scale - 1, top + scale - 1), fill=ink)


def _sign(scene: Scene, rng: Random) -> Image.Image:
    """Four lines of 16 pixels: the mark on a coloured band, the word, one digit per patch, the text at the foot."""
    image, pen = _canvas(scene.theme, rng)
    ink = RGB[rng.choice(("black", "blue", "purple"))]
    texts = {fact.place: fact.thing.split(maxsplit=2)[2] for fact in scene.facts}
    if mark := texts.get("top"):
        pen.rectangle((0, 0, SIDE, 13), fill=RGB["red" if mark == "private" else "green"])
        _write(pen, mark, 4, 2, 2, (255, 255, 255))
    _write(pen, texts["middle"], rng.randint(1, 4), 16, 3, ink)
    for at, digit in enumerate(texts["bottom"].split()):
        _write(pen, digit, CELL * at + rng.randint(2, 5), 33, 3, ink)
    _write(pen, texts.get("foot", ""), 1, 52, 2, RGB["black"])
    return image


def _clip(scene: Scene, rng: Random) -> list[Image.Image]:
    """Frames of a large shape that moves from quarter to quarter."""
    still, _ = _canvas(scene.theme, rng)
    near, far = SIDE // 4 - 0.5, 3 * SIDE // 4 - 0.5
    centre = dict(zip(QUARTERS, [(x, y) for y in (near, far) for x in (near, far)], strict=True))
    where = {fact.place: quarter(fact.thing) for fact in scene.facts}
    if "rest" in where:
        _shape(ImageDraw.Draw(still), scene.at("rest"), *centre[where["rest"]], 7)
    stops = [centre[where[moment]] for moment in ("start", "halfway", "end")]
    points = stops[:1]
    for steps, ((x, y), (to_x, to_y)) in zip(rng.choice(CLIP_STEPS), pairwise(stops), strict=True):
        points += [(x + (to_x - x) * i / steps, y + (to_y - y) * i / steps) for i in range(1, steps + 1)]
    frames, jitter = [], rng.randint(-2, 2)
    for x, y in points:
        frames.append(still.copy())
        _shape(ImageDraw.Draw(frames[-1]), scene.at("start"), x + jitter, y, 13)
    return frames
