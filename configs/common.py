"""Every field of a run, with its default.

A comment that ends in [paper] is from the paper's abstract, [IRRA] is inferred from IRRA's released
recipe, and [ours] is a decision of ours where nothing is known.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Return the defaults shared by all datasets; `dataset` is left for them to fill in."""
    config = ConfigDict()

    # What to train on.
    config.dataset = ""  # name as `tfds_builders.prepare` takes it, e.g. "pa100k" or "peta/sal"
    config.manual_dir = ""  # folder of the raw files; "": TFDS's usual one
    config.data_dir = ""  # folder of prepared datasets; "": TFDS's usual one
    config.validation_categories = 0  # training categories held out for validation; 0: none
    config.image_size = (384, 128)  # pixels, height and width [IRRA]
    config.template = "sentence"  # prompt: "sentence", "list" or "absence" [ours]

    # Length, batch and precision.
    config.seed = 0  # for initialisation, data order, augmentation and masking
    config.batch_size = 64  # images per step, over all devices [IRRA]
    config.micro_batch_size = 0  # images encoded at once, exact accumulation; 0: the whole batch
    config.epochs = 60  # passes over the training split [IRRA]
    config.dtype = "auto"  # of computation; "auto": bfloat16 on accelerators, float32 on CPU
    config.deterministic = False  # ask XLA for bitwise reproducible GPU kernels
    config.on_nonfinite = "stop"  # on a non-finite loss or gradient: "stop", or "skip" the step

    # Where parameters start.
    config.weights = "openai/clip-vit-base-patch16"  # hub id, folder or file; "": none
    config.trust_weights = False  # allow a TorchScript archive, which can run code, as weights
    config.init_from = ""  # another workdir whose parameters to start from

    config.model = model = ConfigDict()
    model.variant = "ViT-B/16"  # preset when weights == "", else read from the weights
    model.activation = ""  # of both towers, "quick_gelu" or "gelu"; "": as the weights say
    model.vision_heads = 0  # attention heads of the image tower; 0: as the weights say
    model.text_heads = 0  # likewise of the text tower
    model.pixel_mean = ()  # subtracted from pixels of 0…1, red, green, blue; (): as the weights say
    model.pixel_std = ()  # divides them; likewise
    model.patch_stride = 0  # pixels; 0: the patch size
    model.position_resize = "bilinear"  # of the pretrained position grid: or "bicubic"
    model.fusion_depth = 4  # self-attention blocks, unless determined by the weights [IRRA]
    model.scan_layers = False  # one compiled layer run in a loop: compiles faster
    model.remat = "none"  # what the backward pass recomputes: "none", "dots" or "full"

    # Sentences of a category beyond the first: the probability of each kind of change. [ours]
    config.sentences = sentences = ConfigDict()
    sentences.variants = 1  # of each category; the first is always the whole sentence in `template`
    sentences.varied = 0.0  # share of the rows that do not use the first
    sentences.partial = 0.0  # it mentions only some groups
    sentences.absences = 0.0  # it states absences
    sentences.templates = 0.0  # it uses another template
    sentences.synonyms = 0.0  # it uses synonyms
    sentences.order = 0.0  # it is reordered

    # Masked attribute prediction.
    config.mask_rate = 0.15  # probability that a phrase is chosen [IRRA; whole phrases are ours]
    config.mask_capacity = 16  # maximum masked tokens per sentence; phrases beyond stay unmasked
    config.match_masked_text = False  # all losses see the masked sentence, as in IRRA's code

    # A weight of 0 disables a loss; equal weights are [ours].
    config.loss = loss = ConfigDict()
    loss.temperature = 0.02  # divides cosines in InfoNCE, SDM and `partial` [IRRA]
    loss.labels = "category"  # positives of SDM and multi-positive InfoNCE: or "agreement" [ours]
    loss.image_target = "joint"  # image→text by agreement a: P/ΣP for P = a/n, or "uniform": a/Σa
    loss.chunk_size = 0  # rows compared with the whole batch at once; 0: all
    loss.info_nce = ConfigDict()
    loss.info_nce.weight = 1.0
    loss.info_nce.multi_positive = False  # items of one category are positives [ours]
    loss.sdm = ConfigDict()
    loss.sdm.weight = 1.0
    loss.identity = ConfigDict()
    loss.identity.weight = 1.0
    loss.map = ConfigDict()
    loss.map.weight = 1.0
    loss.attribute_iou = ConfigDict()
    loss.attribute_iou.weight = 1.0
    loss.attribute_iou.temperature = 0.1  # divides cosines and IoUs [ours]
    loss.attribute_iou.target = "softmax"  # softmax(IoU/T), or "normalized": IoU/sum [ours]
    loss.partial = (
        ConfigDict()
    )  # SDM by agreement with one more sentence of each row, a partial one
    loss.partial.weight = 0.0  # [ours]

    config.augment = augment = ConfigDict()
    augment.flip = 0.5  # probability of a horizontal flip [IRRA]
    augment.pad = 10  # pixels of zero padding before the random crop [IRRA]
    augment.erase = 0.5  # probability of random erasing [IRRA]
    augment.erase_area = (0.02, 0.4)  # share of the picture that is erased [IRRA]

    config.optimizer = optimizer = ConfigDict()
    optimizer.learning_rate = 1e-5  # peak, before the factors of `rules` [IRRA]
    optimizer.warmup_epochs = 5.0  # linear, from warmup_factor × the peak [IRRA]
    optimizer.warmup_factor = 0.1  # [IRRA]
    optimizer.beta1 = 0.9  # Adam's [IRRA]
    optimizer.beta2 = 0.999  # Adam's [IRRA]
    optimizer.epsilon = 1e-3  # Adam's; makes updates nearly linear in these gradients [IRRA]
    optimizer.gradient_clip = 0.0  # largest global norm; 0: none
    # (pattern searched in the parameter's name, learning-rate factor, weight decay); the first
    # match counts; a factor of 0 freezes. Decay is added to the gradient [IRRA], but only in
    # elements that have had one [ours].
    optimizer.rules = (
        (r"^(map_head|classifier)\..*bias$", 5.0, 0.0),
        (r"^(map_head|classifier)\.", 5.0, 4e-5),
        (r"bias$", 2.0, 0.0),
        (r"^fusion\.(cross_attention|blocks)\.", 5.0, 4e-5),
        (r"", 1.0, 4e-5),
    )

    config.mesh = mesh = ConfigDict()
    mesh.data = -1  # devices along the data-parallel axis; -1: all that are left
    mesh.fsdp = 1  # devices that parameters are sharded over
    mesh.min_shard_elements = 2**16  # smaller parameters are replicated

    # What the run records.
    # Of the evaluation: "standard", "sal", "asmr"; "partial" and "absence" [ours].
    config.protocols = ("standard", "partial", "absence")
    config.posterior_temperature = 0.05  # divides cosines in a description's posterior [ours]
    config.selection = (
        "validation"  # checkpoint that counts: best on "validation", "latest", "test"
    )
    config.eval_batch_size = 256  # images encoded at once, over all devices
    config.eval_every_epochs = 1.0  # validation, and test under selection="test"
    config.save_rankings = False  # write rankings.npz: each query's 100 first gallery images
    config.report = True  # draw report/ after evaluation
    config.log_every_steps = 20  # lines of metrics.jsonl, points of TensorBoard
    config.checkpoint_every_minutes = 10.0  # time between saves; 0: only by steps
    config.checkpoint_every_steps = 0  # steps between saves; 0: only by time
    config.on_save_error = "stop"  # such as a full disk: "stop", or on one host "continue"
    config.profile = ""  # "100:105" traces these steps into workdir/profile

    config.data = data = ConfigDict()
    data.threads = 0  # for decoding pictures; 0: one per core, at most 8
    data.prefetch = 4  # batches decoded ahead
    data.cache = "none"  # decoded training split kept in memory: "none", "host" or "device"
    return config


def train_small_from_scratch(config: ConfigDict) -> None:
    """Replace the recipe, which fine-tunes CLIP, with one for a small model and a CPU. [ours]"""
    config.image_size = (96, 48)
    config.batch_size = 32
    config.weights = ""
    config.model.variant = "tiny"
    config.model.fusion_depth = 1
    config.mask_capacity = 4
    config.augment.pad = 4
    config.augment.erase = 0.0
    config.optimizer.learning_rate = 6e-4
    config.optimizer.epsilon = 1e-8
    config.optimizer.warmup_epochs = 0.5
    config.data.cache = "host"
