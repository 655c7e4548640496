"""Following a recording: encode its frames as they arrive, draw its maps again and again, until it has ended."""

import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from hrtemvae_hpc.analysis.against import check_partial
from hrtemvae_hpc.analysis.opened import Job, fit, prepare
from hrtemvae_hpc.config import AnalysisConfig, StatisticsSection
from hrtemvae_hpc.errors import InputError, Stopped, show
from hrtemvae_hpc.files import exists
from hrtemvae_hpc.identity import digest_of
from hrtemvae_hpc.live.bins import TimeBins
from hrtemvae_hpc.live.drawing import Drawer
from hrtemvae_hpc.live.encoding import LiveEncoder, coarse
from hrtemvae_hpc.live.kept import EncodedFrame, KeptLatents
from hrtemvae_hpc.live.places import Span, axes_of_result, strongest_places
from hrtemvae_hpc.live.recording import Recording, count_written
from hrtemvae_hpc.live.tracking import Tracker
from hrtemvae_hpc.live.update import Update
from hrtemvae_hpc.maps.report import opened_to_draw
from hrtemvae_hpc.model.model_file import load_model, model_path
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.outputs import Output, beside, check_outputs, is_page, is_result
from hrtemvae_hpc.ranks.claim import ClaimedFolder
from hrtemvae_hpc.ranks.guard import StopRequest, doing
from hrtemvae_hpc.ranks.progress import on_terminal, say
from hrtemvae_hpc.ranks.resources import compute_threads
from hrtemvae_hpc.ranks.saved import note_saved
from hrtemvae_hpc.ranks.world import World
from hrtemvae_hpc.statistics.over_time import MINIMUM_FRAMES

_LATENTS, _MAPS = "latents.bin", "maps.h5"
_LOOK_EVERY_S = 0.2
_FIRST = 8  # frames that are encoded as soon as there are as many, whatever that takes
_SHARE = 0.5  # of the time between two drawings that encoding may take
_LONGEST_SILENCE_S = 60.0  # in a log


@dataclass(frozen=True)
class Following:
    """How a recording is followed."""

    every_s: float = 5.0  # from one drawing to the next, at least
    settle_s: float = 60.0  # without a change, after which a movie has ended
    as_json: bool = False  # whether each drawing is reported on standard output


def live_folder(output: Path) -> ClaimedFolder:
    """The folder beside ``output`` that holds what is kept of a recording."""
    return ClaimedFolder(output.with_name(f"{output.name}.live"), "live", [r"latents\.bin", r"maps\.h5"])


def follow_recording(
    path: Path, config: AnalysisConfig, output: Path, restart: bool, stop: StopRequest, how: Following
) -> None:
    """Follow the movie ``path``, which need not exist yet, until it has ended, on this rank alone.

    Its page is that of ``output``, whose analysis comes afterwards; nothing happens if ``output`` exists, unless
    ``restart``. Raises InputError, Stopped, Blocked or RankFailed; what was encoded is kept then.
    """
    if exists(output) and not restart:
        return
    if config.drift.correct not in ("auto", "none"):
        raise InputError("--drift FILE: knows the drift of a complete movie; follow with --drift auto or none.")
    page = beside(output, ".html")
    check_outputs([Output(output, "the result", is_result), Output(page, "its page", is_page)], [path])
    model = load_model(model_path(config.encoding.model))
    folder = live_folder(output)
    folder.check()
    with folder, closing(Recording(path, config.movie, config.drift.roi, how.settle_s)) as recording:
        folder.take()
        if restart:
            folder.clear()
        doing("following the recording")
        _wait_for_frames(recording, folder, stop)
        if recording.has_ended:
            return
        world, first = World(), recording.frames(slice(0, MINIMUM_FRAMES))
        check_partial(config)
        config = config.model_copy(update={"statistics": StatisticsSection()})  # a log may not be there yet
        job = prepare(world, fit(first, model, coarse(config, fit(first, model, config).grid)))
        engine, threads = job.engine, compute_threads(world)
        with ThreadPoolExecutor(engine.at_once(threads), "encode", initializer=engine.begin_thread) as pool:
            tracker = None if config.drift.correct == "none" else Tracker()
            encoder = LiveEncoder(job, tracker, pool)
            key = _key(job, first)
            drawer = Drawer(encoder, folder.path / _MAPS, page, key)
            shape = (job.grid.rows, job.grid.columns, engine.latents)
            with closing(KeptLatents(folder.path / _LATENTS, key, shape)) as kept:
                _Follower(recording, encoder, kept, drawer, folder, stop, how).run()
    say("the recording has ended; analysing all of it.")


def finish_following(output: Path, how: Following) -> None:
    """Remove what was kept of a recording, after the analysis, and report the final places if ``how`` asks for it."""
    live_folder(output).discard()
    if how.as_json:
        with opened_to_draw(output) as result:
            process = result.process
            apart = -(-process.window // process.step)
            places = strongest_places([Span.of_result(result)], axes_of_result(result), apart)
            facts = {"final": True, "frame": process.frames[-1], "units": result.units, "result": str(output)}
        show(json.dumps({**facts, "places": [asdict(place) for place in places]}))


def _wait_for_frames(recording: Recording, folder: ClaimedFolder, stop: StopRequest) -> None:
    """Wait until there are enough frames, or there will be no more."""
    said = ""
    while True:
        recording.look()
        if recording.has_ended or count_written(recording, 0) >= MINIMUM_FRAMES:
            return
        waits_for = recording.obstacle or f"{recording.path}: waiting for its first {MINIMUM_FRAMES + 1} frames."
        if waits_for != said:
            say(f"waiting: {waits_for}" if recording.obstacle else waits_for)
            said = waits_for
        folder.heartbeat(0)
        _rest(stop)


def _rest(stop: StopRequest) -> None:
    if stop:
        raise Stopped(f"stopped by {stop.name} while following; run the same command again to go on.")
    time.sleep(_LOOK_EVERY_S)


def _key(job: Job, movie: Movie) -> str:
    """What the kept latents are of: the analysis, and the recording by its first frame."""
    facts = {
        **{name: job.identity[name] for name in ("model", "preprocess", "frame", "windows", "precision", "version")},
        "movie": [movie.source.dataset, movie.dtype.str, movie.top, movie.left, *movie.shape[1:]],
        "frames": movie.frame_indices[:2].tolist(),
        "drift": job.config.drift.model_dump(),
        "file": movie.path.stat().st_ino,
    }
    try:
        first = movie.read(slice(0, 1), movie.area)
    except OSError as error:
        raise InputError(f"{movie.where}: its first frame can't be decoded; leave it out with --frames 1:.") from error
    return digest_of(facts, [first.tobytes()])


@dataclass
class _Follower:
    """The loop, and what it knows."""

    recording: Recording
    encoder: LiveEncoder
    kept: KeptLatents
    drawer: Drawer
    folder: ClaimedFolder
    stop: StopRequest
    how: Following
    began: float = field(default_factory=time.monotonic)
    next: int = 0  # frame of the recording to encode next
    step: int = 1  # between frames that are encoded
    frames: list[int] = field(default_factory=list)  # that were encoded, as the movie counts them
    places: list[tuple[float, float]] = field(default_factory=list)  # of the specimen in them
    trouble: str = ""  # that was reported last

    def run(self) -> None:
        """Encode and draw until the recording has ended."""
        job = self.encoder.job
        self.bins = TimeBins(job.grid.rows, job.grid.columns, job.engine.latents)
        self.seconds_per_frame = job.grid.rows * job.grid.columns / job.resources.encode_rate
        self.said, self.pause = -math.inf, self.how.every_s
        self._resume()
        drawn, due = 0, time.monotonic()
        while True:
            self.folder.heartbeat(0)
            before = self.next
            with self._going_on("waiting"):
                self._encode_some()
            if self.bins.whole.frames > drawn and len(self.bins.whole) >= MINIMUM_FRAMES and time.monotonic() >= due:
                began = time.monotonic()
                with self._going_on("not drawn"):
                    self._draw()
                    drawn = self.bins.whole.frames
                due = began + max(self.how.every_s, (time.monotonic() - began) / _SHARE)
            if self.next == before and self.recording.has_ended:
                return
            if self.next == before or self.stop:
                _rest(self.stop)
            self.recording.look()
            self._report(self.recording.obstacle, "waiting")

    @contextmanager
    def _going_on(self, without: str) -> Iterator[None]:
        """What can't be read or drawn now may be at the next look; the analysis in the end reports what can't."""
        try:
            yield
        except (InputError, OSError) as error:
            self._report(str(error), without)

    def _report(self, trouble: str, without: str) -> None:
        if trouble and trouble != self.trouble:
            say(f"{without}: {trouble}")
            self.trouble = trouble

    def _resume(self) -> None:
        for encoded in self.kept.read():
            self._note(encoded)
        if not self.frames:
            return
        start, step = self.encoder.job.movie.frame_indices[0], np.diff(self.encoder.job.movie.frame_indices[:2])[0]
        self.next = int((self.frames[-1] - start) // step) + 1
        say(f"resuming: {len(self.frames):,} frames are encoded.")
        if self.encoder.tracker and self.next <= self.recording.count:
            last = self.recording.frames(slice(self.next - 1, self.next))
            self.encoder.resume(last, self.places[-1])

    def _note(self, encoded: EncodedFrame) -> None:
        self.bins.add(encoded.frame, encoded.z)
        self.frames.append(encoded.frame)
        self.places.append(encoded.place)

    def _encode_some(self) -> None:
        """Encode the next frames that were recorded; of many only every n-th, up to the newest, to keep up."""
        written = count_written(self.recording, self.next)
        behind = written - self.next
        if behind <= 0:
            return
        self.recording.note_arrival(written)
        room = max(1.0, _FIRST - len(self.frames), _SHARE * self.how.every_s / self.seconds_per_frame)
        self.step = 2 ** max(0, math.ceil(math.log2(behind / room)))
        first = self.next + (behind - 1) % self.step
        which = range(first, written, self.step)[: self.encoder.frames_at_once]
        began = time.monotonic()
        encoded = self.encoder.encode(self.recording.frames(slice(which.start, which[-1] + 1, self.step)))
        self.seconds_per_frame = (self.seconds_per_frame + (time.monotonic() - began) / len(which)) / 2
        for each in encoded:
            self.kept.add(each)
            self._note(each)
        note_saved()
        self.next = which[-1] + 1

    def _draw(self) -> None:
        movie = self.recording.frames(slice(0, self.next))
        if self.encoder.tracker:
            along = [np.interp(movie.frame_indices, self.frames, axis) for axis in zip(*self.places, strict=True)]
            movie.follow(np.rint(np.stack(along, 1)).astype(np.int64), np.zeros(movie.shape[0], np.bool_))
        places = self.drawer.draw(movie, self.bins, time.monotonic() - self.began)
        delay = self.recording.age(self.next)
        self.recording.forget(self.next)
        update = Update(
            frame=self.frames[-1],
            time_s=None if movie.times_s is None else float(movie.times_s[-1]),
            encoded=len(self.frames),
            step=self.step,
            delay_s=delay,
            drift_px=self.places[-1],
            units="nm" if movie.pixel_size_nm else "pixel",
            page=self.drawer.page,
            places=places,
        )
        if self.how.as_json:
            show(update.as_json())
        if on_terminal() or time.monotonic() - self.said >= self.pause:
            say(str(update))
            self.said, self.pause = time.monotonic(), min(2 * self.pause, _LONGEST_SILENCE_S)
