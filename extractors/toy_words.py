"""The fixed vocabulary of the toy tokenizers and of the toy word vectors."""

from __future__ import annotations

import string

_COMMON = """
a about after again all also always am an and another any are around as at away back be because been before best
better between big both but buy by can come could day days did different do does done down each easy end enough even
ever every everyone everything few find first five for four free friend friends from full get girl give go going gone
good got great had half hand hands happy hard has have he head heart help her here hers high him his home hot hour
hours how i if in into is it its just keep kids know last later learn left less let life light like little live long
look lot love made make makes making man many me mean men might mine minute minutes moment money month more morning
most mother much must my name near need never new next nice night no not nothing now of off old on once one only open
or other our out over own part parts people perfect person place play please put quick really red right room run said
same save say says school second seconds see set she should show shows side simple six small so some something start
still stop story such sure take takes taste tell ten than that the their them then there these they thing things think
this those three through time times tips to today together told too top try tries turn two under until up us use used
using very video videos wait want was watch way we week well went were what when where which while who why will win
wish with without woman women word work world would year years yes yet you young your yours zero
"""
_TOPICS = """
album animal animals anime apple art artist audio baby bag ball balcony ballet band bass battery beach beautiful
beauty bed beer bike bird birthday black blue board boat body bonsai book books boss bottle bowl box boy bread
breakfast breathing bridge bright brother brown brush build building bus cable cake calories camera camp camping
candle candy car card care case cat cats challenge chef chicken chocolate choreography chorus christmas city class
classic clean cleaning clothes coach coffee color colour comedy compatible concert controller cook cooking cool coral
cosplay costume country couple cover craft cream cup cute dad daily dance dancing dark dashcam daughter deep design
device dinner diving diy doctor dog dogs doll drama draw drawing dream dress dribble drift drink drive driver drone
drum dumplings dust edition egg electric engine episode exercise eye eyeliner face fall family fan farm fashion fast
father festival film fire fish fishing fitness flat flower flowers fluffy fly food foot football foundation fox fruit
fun funny future game gamer games gaming garage garden garlic ghost gift glass goal gold grass green greenhouse grey
guide guitar gym hair hairstyle hamster harvest hat health heavy hero highway hiking history hockey holiday horror
horse house ice idea indoor island jacket job joke juice jump kit kitchen kite kitten knife lake lamp land language
large laugh leaf league leather lego lesson level library lights line lipstick litter lock lover lucky lunch lyrics
machine magic makeup map market mask match math meal melody memory meow metal milk mini mirror mobile modern mom
monster moon motorcycle mountain mouse movie muscle muscles museum mushroom music mystery nail nails nature naughty
neon news noodles ocean office oil orange outdoor outfit pack paint painting paper park partner party paws peace
penalty pet phone photo piano pink pizza plank plant plants plastic player pop portable power premium prank pro
product puppy purple purring puzzle quest race racing radio rain rainbow recipe record remote repair review rhythm
rice ride ring river road robot rock roses running sad salad sand saxophone science scooter screen sea season secret
seeds series shirt shoes shopping shorts silver singing sister skateboard skin skincare sky skyline sleep sleepy slow
smart smile snack sniper snow soap soccer soft soil song sound soup space spectacular speed speedrun spicy spin sport
sports spring squats stadium stage star station stage steel steps stick stone storm strap street stretch strings
strong student studio style subway sugar summer sun sunset surf surfing sweet swim swimming table tablet tea teacher
team teammate tech tennis theme ticket tiger tiny tomatoes tool tools toy toys track traditional train training travel
tree trick trip truck tutorial ukulele unboxing university vegan vegetables victory village vintage violin vlog voice
walk wall warm watching water wave waves weather wedding whale wheel wheels whiskers white wild wind window wine
winter wireless wolf wood wooden workout yellow yoga
"""
_PICTURES = """
above background below bottom bounce circle corner disc disk dot down fades frames grows horizontal left moving object
pattern right rises rotates shape shrinks slides spins square still stripe stripes tile triangle up vertical zoom
"""

TOY_WORDS: tuple[str, ...] = tuple(
    sorted({*_COMMON.split(), *_TOPICS.split(), *_PICTURES.split(), *string.ascii_lowercase, *string.digits})
)
"""Common English words, topics of short videos and products, letters and digits; sorted, lower case."""
